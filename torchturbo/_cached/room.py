"""How many bytes may be taken: as people write it, or half of what is free."""

from __future__ import annotations

import shutil
from pathlib import Path

from torchturbo._words import bytes_of
from torchturbo.hardware import _room

_UNKNOWN = 2**30
"""Bytes of memory that are taken where nobody says how many are free."""


def limit_of(max_bytes: int | str | None, folder: Path | None) -> int:
    """The bytes that may be taken: what is asked for, or half of what is free now.

    Args:
        max_bytes: what is asked for.
        folder: where they are taken; None for memory.

    Raises:
        OptionValueError: `max_bytes` is no number of bytes.
    """
    if max_bytes is not None:
        return bytes_of(max_bytes, "max_bytes")
    if folder is None:
        return (_room.memory() or _UNKNOWN) // 2
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free // 2
