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
from torchturbo.hardware._ranks import in_group, is_launched, processes_here

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


class _Started:
    """The group that was started here.

    Attributes:
        timeout: what it waits, in seconds; None for torch's own, or where there is none.
    """

    timeout: float | None = None


def joined(device: torch.device | str | None, timeout: float | None) -> Ranks | None:
    """The processes of this run, after starting a group where there is none; None where there is one process.

    Args:
        device: what this process computes on; by itself the GPU of its number on this machine, else the CPU.
        timeout: seconds that one waits for another, of a group that is started here; None for torch's own.

    Raises:
        DistributedError: torch was built without torch.distributed; a group that the code has started has no backend
            for the device; or there is a group already that waits for another time.
    """
    started = False
    if timeout is not None and in_group() and timeout != _Started.timeout:
        raise DistributedError(
            f"timeout={timeout:g}: there is a process group already, whose time stands: give it to the first of "
            "distribute() and others that start one (shard() does too), or to init_process_group(timeout=)"
        )
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
    world = dist.get_world_size()
    return Ranks(dist.get_rank(), world, processes_here(otherwise=world), here, backend, started)


def _start(device: torch.device, timeout: float | None) -> None:
    if not dist.is_available():
        raise DistributedError("this process is one of several, and this torch was built without torch.distributed")
    backend = backend_for(device)
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    waits = None if timeout is None else datetime.timedelta(seconds=timeout)
    dist.init_process_group(backend, timeout=waits)
    _Started.timeout = timeout
    gone.begin()
    atexit.register(_leave)


def _leave() -> None:
    """Leaves the group when Python ends; not after an error, when the others may not answer any more."""
    if dist.is_initialized() and not gone.has_failed():
        gone.say("has ended without the others")
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
        return torch.device(device.type, _own_gpu(torch.get_device_module(device).device_count()))
    return device


def _own_gpu(count: int) -> int:
    """The number of this process's GPU; 0 where whoever has started it shows it no other.

    Args:
        count: the GPUs that torch sees.
    """
    index = int(os.environ.get("LOCAL_RANK", 0))
    if index >= count > 1:
        raise DistributedError(
            f"this is process {index} of its machine, counted from 0, and torch sees {count} GPUs: start as many "
            f"processes (--nproc-per-node={count}), or name the GPU with device="
        )
    return 0 if count == 1 else index


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
