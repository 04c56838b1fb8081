"""The processes that torchrun has started, and the group that they talk in."""

from __future__ import annotations

import atexit
import datetime
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from torchturbo._distribute import gone
from torchturbo.errors import DistributedError
from torchturbo.hardware._ranks import in_group, is_launched

_OF_DEVICE: dict[str, str] = dist.Backend.default_device_backend_map if dist.is_available() else {}
"""Torch's own backends, by type of device."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: which this one is.
        ranks: how many there are.
        beside: how many of them are on this machine.
        device: what this one computes on.
        backend: what they talk by, in torch's words.
        started: whether the group was started here, and not by the code.
    """

    rank: int
    ranks: int
    beside: int
    device: torch.device
    backend: str
    started: bool


def joined(device: torch.device | str | None, timeout: float | None) -> Ranks | None:
    """The processes of this run, after starting a group where there is none; None where there is one process.

    Args:
        device: what this process computes on; by itself the GPU of its number on this machine, else the CPU.
        timeout: seconds that one waits for another, of a group that is started here; None for torch's own.

    Raises:
        DistributedError: torch was built without torch.distributed, or a group that the code has started has no
            backend for the device.
    """
    started = False
    if not in_group():
        if not is_launched():
            return None
        _start(device_of(device), timeout)
        started = True
    if dist.get_world_size() == 1:
        return None
    here = device_of(device)
    backend, needed = str(dist.get_backend_config()), backend_for(here)
    if here.type != "cpu" and _OF_DEVICE[here.type] not in backend:
        raise DistributedError(
            f"the process group talks by {backend!r}, which is not for {here}: start it with "
            f"torch.distributed.init_process_group({needed!r}), or not at all, and distribute() starts one"
        )
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
    return Ranks(dist.get_rank(), dist.get_world_size(), beside, here, backend, started)


def _start(device: torch.device, timeout: float | None) -> None:
    if not dist.is_available():
        raise DistributedError("this process is one of several, and this torch was built without torch.distributed")
    backend = backend_for(device)
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    waits = None if timeout is None else datetime.timedelta(seconds=timeout)
    dist.init_process_group(backend, timeout=waits)
    gone.begin()
    atexit.register(_leave)


def _leave() -> None:
    """Leaves the group when Python ends; not after an error, when the others may not answer any more."""
    if dist.is_initialized() and not gone.has_failed():
        dist.destroy_process_group()


def device_of(asked: torch.device | str | None) -> torch.device:
    """What this process computes on.

    Args:
        asked: what was asked for; None for the GPU if there is one. One without a number is that of this rank's.
    """
    if asked is None:
        here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        asked = here if here is not None and here.type in ("cuda", "xpu") else "cpu"
    device = torch.device(asked)
    if device.type in ("cuda", "xpu") and ":" not in str(device):
        return torch.device(device.type, int(os.environ.get("LOCAL_RANK", 0)))
    return device


def backend_for(device: torch.device) -> str:
    """What processes talk by, in the words of `torch.distributed.init_process_group`.

    Args:
        device: what this one computes on.

    Raises:
        DistributedError: torch knows nothing for it.
    """
    if device.type == "cpu":
        return "gloo"
    if device.type not in _OF_DEVICE:
        raise DistributedError(
            f"torch has no backend by which processes send tensors of {device}: use a GPU or the CPU"
        )
    # Checkpoints and flags go by gloo, from CPU to CPU.
    return f"cpu:gloo,{device.type}:{_OF_DEVICE[device.type]}"
