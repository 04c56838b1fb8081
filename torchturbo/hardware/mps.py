"""What Apple's GPU is, where there is one."""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch

from torchturbo.hardware._base import Mps
from torchturbo.hardware._room import installed

UNPROVEN = "torchturbo is unproven on Apple GPUs."


def ask() -> tuple[Mps | None, tuple[str, ...]]:
    """The GPU if torch can use it, and what there is to say of it; no Apple needs not be told why there is none."""
    if torch.backends.mps.is_available():
        # Not torch.mps.recommended_max_memory(): it starts torch's Metal allocator, and asking starts nothing.
        return Mps(name=_name(), memory=installed()), (UNPROVEN,)
    if platform.system() != "Darwin":
        return None, ()
    if not torch.backends.mps.is_built():
        return None, (f"This torch build ({torch.__version__}) has no MPS, so it cannot use an Apple GPU.",)
    return None, ("torch finds no Apple GPU that it can use: MPS needs Apple silicon and a recent macOS.",)


def _name() -> str:
    ask_name: Callable[[], str] | None = getattr(torch.backends.mps, "get_name", None)  # not in torch 2.8
    return ask_name() if ask_name is not None else "Apple GPU"
