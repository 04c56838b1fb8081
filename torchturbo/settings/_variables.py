"""Environment variables as cells: what this process reads later, and what processes that it starts are given."""

from __future__ import annotations

import os

from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw


def variable(name: str) -> Cell:
    """The cell of an environment variable, whose raw state is its text, or None where it is not set.

    Args:
        name: the variable's.
    """

    def read() -> str | None:
        return os.environ.get(name)

    def write(raw: str | None, over: Raw) -> None:
        if raw is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = raw

    return Cell(name, "process", read, write)
