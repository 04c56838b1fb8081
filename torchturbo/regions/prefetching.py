"""Batches that are on the GPU before the loop asks for them: data loaders that are iterated in a block.

`torchturbo.regions._iterated` reaches the loaders, `_ahead` looks ahead, `_lanes` copies. `torchturbo.prefetch` does
the same for one loader, or for any iterable.
"""

from __future__ import annotations

from typing import Any

from torchturbo.hardware import Hardware
from torchturbo.regions._iterated import PREFETCHING, told
from torchturbo.settings._base import BOOL, Setting
from torchturbo.settings._edits import always


def _why_not(hardware: Hardware, value: Any) -> str | None:
    if not value or hardware.device_type == "cuda":
        return None
    if hardware.device_type == "mps":
        return "torch has no pinned memory and no side streams for Apple's GPU"
    return "batches are used by the CPU, where they are already"


prefetch = Setting(
    help="Move batches of data loaders iterated in the block to the GPU, the next while one is used.",
    values=BOOL,
    cells=(PREFETCHING,),
    edits=lambda value, hardware: ((PREFETCHING, always(value)),),
    show=bool,
    why_not=_why_not,
    told=told,
)
