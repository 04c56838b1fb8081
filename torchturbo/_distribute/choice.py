"""Whether each rank can hold the whole model: what a strategy is chosen by where none is named."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from torchturbo._words import size
from torchturbo.hardware import Gpu, Xpu, detect
from torchturbo.hardware._room import installed

Strategy = Literal["ddp", "fsdp"]
_ROOM = 0.5
"""Of a device's memory, for what stays: the rest is for activations, and for what reductions and kernels take."""


def bytes_of(model: nn.Module) -> int:
    """What weights, gradients and two moments of an optimizer take, in bytes.

    Args:
        model: the model.
    """
    weights = {id(each): each for each in model.parameters()}.values()
    return sum(each.nbytes * (4 if each.requires_grad else 1) for each in weights)


def room_of(device: torch.device, beside: int) -> int | None:
    """The memory that a rank has on its device, in bytes; None where it is not told.

    Args:
        device: what it computes on.
        beside: the ranks on this machine, which share its memory on a CPU.
    """
    if device.type == "cpu":
        memory = installed()
        return None if memory is None else memory // beside
    here = detect()
    of_type: dict[str, tuple[Gpu | Xpu, ...]] = {"cuda": here.gpus, "xpu": here.xpus}
    gpus = of_type.get(device.type, ())
    index = device.index or 0
    return gpus[index].memory if index < len(gpus) else None


def chosen(takes: int, room: int | None) -> tuple[Strategy, str]:
    """A strategy and why, as a sentence.

    Args:
        takes: what weights, gradients and moments take, in bytes.
        room: the memory of the device, in bytes; None where it is not told.
    """
    what = f"weights, gradients and two moments take {size(takes)}"
    if room is None:
        return "ddp", f"{what}, and nobody tells how much memory the device has"
    share = f"{what}, {takes / room:.0%} of the {size(room)} that a rank has"
    if takes <= _ROOM * room:
        return "ddp", f"{share}: each holds the whole"
    return "fsdp", f"{share}, more than {_ROOM:.0%}: they are sharded"
