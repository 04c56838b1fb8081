"""Data loaders: what their `DataLoader(...)` call left at its default, filled in where they are made in a block.

An argument that the call names is never touched. `torchturbo.regions._arguments` fills in; `_workers` decides how many
workers a loader gets, and `_datasets` finds what no worker would get right.
"""

from __future__ import annotations

from typing import Any

from torchturbo.hardware import Hardware
from torchturbo.regions._arguments import CELLS, made, no_pinning, told_of
from torchturbo.settings._base import Setting, Values, choice, number, same
from torchturbo.settings._edits import always

__all__ = ["made", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor"]


def _why_not_pinned(hardware: Hardware, value: Any) -> str | None:
    return no_pinning(hardware) if value is True else None


def _option(name: str, help: str, values: Values, **more: Any) -> Setting:
    cell = CELLS[name]
    return Setting(
        help=help,
        values=values,
        cells=(cell,),
        edits=lambda value, hardware: ((cell, always(value)),),
        show=same,
        told=lambda: told_of(name),
        **more,
    )


num_workers = _option(
    "num_workers",
    "Processes that fetch batches, for data loaders made in the block whose call does not say.",
    number(0, "auto"),
)
prefetch_factor = _option(
    "prefetch_factor",
    "Batches that each worker fetches ahead, for data loaders made in the block whose call does not say.",
    number(1, "auto"),
)
pin_memory = _option(
    "pin_memory",
    "Batches in pinned memory, copied to the GPU faster, for data loaders made in the block whose call does not say.",
    choice(True, False, "auto"),
    why_not=_why_not_pinned,
)
persistent_workers = _option(
    "persistent_workers",
    "Workers that are kept from epoch to epoch, for data loaders made in the block whose call does not say.",
    choice(True, False, "auto"),
)
