"""Batches larger than memory holds: a window of micro-batches for each step of an untouched loop.

`torchturbo.regions._accumulating` does it.
"""

from __future__ import annotations

from typing import Any

from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._backward import ACCUMULATING
from torchturbo.settings._base import Setting, number
from torchturbo.settings._edits import anew


def _show(raw: Accumulation | None) -> object:
    return 1 if raw is None else raw.every


def _edits(value: Any, hardware: object) -> Any:
    return ((ACCUMULATING, anew(lambda: None if value == 1 else Accumulation(value))),)


accumulate = Setting(
    "Micro-batches for each step: backward averages over them, and optimizers and schedulers step after the last.",
    number(1),
    (ACCUMULATING,),
    _edits,
    _show,
)
