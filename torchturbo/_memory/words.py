"""The words of a plan of memory, without their layout."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._memory.data import MemoryPlan, MemoryUse
from torchturbo._words import size

COLUMNS = ("switch", "weights", "gradients", "optimizer", "activations", "peak", "saved")


def heading(found: MemoryPlan) -> str:
    """What it is of."""
    return (
        f"Memory of a step of {found.model} on {found.device}, torch {found.torch}; its batch has {size(found.batch)}."
    )


def rows(found: MemoryPlan) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    for row in found.rows:
        sizes = (row.weights, row.gradients, row.optimizer, row.activations, row.peak)
        yield (row.name, *map(size, sizes), saved(found, row))


def saved(found: MemoryPlan, row: MemoryUse) -> str:
    """How much smaller the peak is than now, or that the switch does nothing here."""
    now = found.rows[0]
    if row.refused is not None:
        return "no effect"
    return "" if row is now or not now.peak else f"{1 - row.peak / now.peak:.0%}"


def notes(found: MemoryPlan) -> tuple[str, ...]:
    """What there is to know, and why what has no effect has none."""
    return *(f"{row.name}: {row.refused}" for row in found.rows if row.refused), *found.notes
