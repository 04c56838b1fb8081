"""Reports made to measure: what would be gathered on some machine, with any fact replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torchturbo._report import gather
from torchturbo._report.data import Block, Report
from torchturbo.hardware import Hardware
from torchturbo.regions.compiling import Compiled
from torchturbo.testing import pretend_hardware

OPEN = Block("fast", {}, "train.py:7", "MainThread", left_out=(), wanted=4, open=True)
"""A block that is open and of which nothing is left out."""
COMPILED = Compiled("GPT", "default", 2, 12.34, None)
"""A model that has been compiled."""


def facts(
    machine: str | Hardware = "cpu", rows: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> Report:
    """A report without advice.

    Args:
        machine: what to pretend.
        rows: by option, the attributes of its row that differ from those of a fresh torch.
        **changes: other parts of the report.
    """
    rows = rows or {}
    with pretend_hardware(machine):
        fresh = gather()
    assert set(rows) <= {row.name for row in fresh}
    table = tuple(replace(row, **rows.get(row.name, {})) for row in fresh)
    return replace(fresh, rows=table, **{"advice": (), "compiled": (), **changes})
