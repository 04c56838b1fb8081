"""How many bytes may be taken: as people write it, or half of what is free."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

from torchturbo.errors import OptionValueError
from torchturbo.hardware import _room

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b|bytes)?\s*", re.IGNORECASE)
_UNKNOWN = 2**30
"""Bytes of memory that are taken where nobody says how many are free."""


def bytes_of(max_bytes: int | str) -> int:
    """A number of bytes.

    Args:
        max_bytes: bytes, or text as ``"500 MB"``, ``"2 GB"`` or ``"1.5 GiB"``.

    Raises:
        OptionValueError: it is no number of bytes.
    """
    count = math.nan
    if isinstance(max_bytes, str):
        if found := _TEXT.fullmatch(max_bytes):
            count = float(found[1]) * (1024 if found[3] else 1000) ** _UNITS[found[2].lower()]
    elif type(max_bytes) in (int, float):
        count = float(max_bytes)
    if not 1 <= count < math.inf:
        raise OptionValueError(
            f"max_bytes={max_bytes!r}: expected a number of bytes, as '500 MB', '2 GB' or 2_000_000_000"
        )
    return int(count)


def limit_of(max_bytes: int | str | None, folder: Path | None) -> int:
    """The bytes that may be taken: what is asked for, or half of what is free now.

    Args:
        max_bytes: what is asked for.
        folder: where they are taken; None for memory.

    Raises:
        OptionValueError: `max_bytes` is no number of bytes.
    """
    if max_bytes is not None:
        return bytes_of(max_bytes)
    if folder is None:
        return (_room.memory() or _UNKNOWN) // 2
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free // 2
