"""What stands in many sentences: bytes, times, counts and options; and the amounts that words of users stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from numbers import Real

from torchturbo.errors import OptionValueError

_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60}
_SECONDS |= {"h": 3600, "hour": 3600, "hours": 3600, "": 1}
_BYTES = {"": 1, "b": 1, "bytes": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _BYTES |= {f"{_letter}{end}": 1000**_power for end in ("", "b", "bytes")}
    _BYTES |= {f"{_letter}i{end}": 1024**_power for end in ("", "b", "bytes")}

# ------------------------------------------------------------------------------------------------------------ in words


def size(count: float) -> str:
    """Bytes in the units in which torch tells them: ``1.5 GiB``.

    Args:
        count: of bytes.
    """
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{_short(value)} {unit}"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, without the unit: ``12.3``.

    Args:
        seconds: of it.
    """
    return _short(seconds * 1e3)


def time(seconds: float) -> str:
    """A time, in seconds or in milliseconds: ``12.3 ms``.

    Args:
        seconds: of it.
    """
    return f"{_short(seconds)} s" if seconds >= 1 else f"{milliseconds(seconds)} ms"


def clock(seconds: float) -> str:
    """A time as clocks show it: ``1:02:03``.

    Args:
        seconds: of it.
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def short(number: float) -> str:
    """A number that changes, in three digits or so: ``12.3k``.

    Args:
        number: at least 0.
    """
    for bound, by, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= bound:
            return f"{_short(number / by)}{letter}"
    return _short(number)


def some(count: int, thing: str) -> str:
    """How many there are: ``1 core``, ``2 cores``.

    Args:
        count: of them.
        thing: one of them, whose plural ends in "s".
    """
    return f"{count:,} {thing}{'s' * (count != 1)}"


def arguments(options: Mapping[str, object]) -> str:
    """Options as a call has them: ``autocast='bf16', tf32=True``.

    Args:
        options: by name.
    """
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _short(value: float) -> str:
    """As many digits as tell something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ----------------------------------------------------------------------------------------------------- of what is asked


def seconds_of(asked: float | str | timedelta, name: str) -> float:
    """A time in seconds.

    Args:
        asked: seconds, a `datetime.timedelta`, or text as ``"90 s"``, ``"2 min"`` or ``"1 h"``.
        name: of the argument, for the message.

    Raises:
        OptionValueError: it is no time.
    """
    seconds = asked.total_seconds() if isinstance(asked, timedelta) else _meant(asked, _SECONDS)
    if not 0 < seconds < math.inf:
        raise OptionValueError(f"{name}={asked!r}: expected a time, as '90 s', '2 min' or '1 h', or seconds")
    return seconds


def bytes_of(asked: float | str, name: str) -> int:
    """A number of bytes.

    Args:
        asked: bytes, or text as ``"500 MB"``, ``"2 GB"`` or ``"1.5 GiB"``.
        name: of the argument, for the message.

    Raises:
        OptionValueError: it is no number of bytes.
    """
    count = _meant(asked, _BYTES)
    if not 1 <= count < math.inf:
        raise OptionValueError(f"{name}={asked!r}: expected a number of bytes, as '500 MB', '2 GB' or 2_000_000_000")
    return int(count)


def _meant(asked: object, units: dict[str, int]) -> float:
    """The number that is meant; NaN for what is none."""
    if isinstance(asked, str):
        found = _TEXT.fullmatch(asked)
        return float(found[1]) * units[found[2].lower()] if found and found[2].lower() in units else math.nan
    if isinstance(asked, bool) or not isinstance(asked, Real):
        return math.nan
    return float(asked)
