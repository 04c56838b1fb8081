"""How long something may take, as people write it."""

from __future__ import annotations

import math
import re

from torchturbo.errors import OptionValueError

_UNITS = {"s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60}
_UNITS |= {"h": 3600, "hour": 3600, "hours": 3600, "": 1}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def seconds_of(budget: float | str) -> float:
    """A time in seconds.

    Args:
        budget: seconds, or text as ``"90 s"``, ``"2 min"`` or ``"1 h"``.

    Raises:
        OptionValueError: it is no time.
    """
    if isinstance(budget, str):
        found = _TEXT.fullmatch(budget)
        seconds = float(found[1]) * _UNITS[found[2].lower()] if found and found[2].lower() in _UNITS else math.nan
    else:
        seconds = float(budget)
    if not 0 < seconds < math.inf:
        raise OptionValueError(f"budget={budget!r}: expected a time, as '90 s', '2 min' or '1 h', or seconds")
    return seconds
