"""The seed in force, and what is remembered of a block that has one."""

from __future__ import annotations

import os

from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw


class Seeding:
    """One entry of a block with a seed.

    Args:
        seed: at least 0 and less than 2**32.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __repr__(self) -> str:
        return f"<seeding {self.seed}>"


class _Now:
    seeding: Seeding | None = None


_now = _Now()


def seeding() -> Seeding | None:
    """The newest that is in force, in whichever thread."""
    return _now.seeding


def _read() -> Seeding | None:
    return _now.seeding


def _write(raw: Seeding | None, over: Raw) -> None:
    _now.seeding = raw


SEEDING = Cell("the seed", "process", _read, _write)

_VARIABLE = "PYTHONHASHSEED"


def _read_variable() -> str | None:
    return os.environ.get(_VARIABLE)


def _write_variable(raw: str | None, over: Raw) -> None:
    if raw is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = raw


HASHES = Cell(_VARIABLE, "process", _read_variable, _write_variable)
"""The order of sets of strings in processes that are started meanwhile; this one has read it when it started."""
