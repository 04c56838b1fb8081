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

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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


def is_launched() -> bool:
    """Whether torchrun, or whoever sets what it sets, has started this process as one of several."""
    return all(name in os.environ for name in _ENVIRONMENT) and int(os.environ["WORLD_SIZE"]) > 1


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
    if not (dist.is_available() and dist.is_initialized()):
        if not is_launched():
            return None
        _start(_device(device), timeout)
        started = True
    if dist.get_world_size() == 1:
        return None
    here = _device(device)
    backend = str(dist.get_backend_config())
    if here.type == "cuda" and "nccl" not in backend:
        raise DistributedError(
            f"the process group talks by {backend!r}, which is not for {here}: start it with "
            "torch.distributed.init_process_group('cpu:gloo,cuda:nccl'), or not at all, and distribute() starts one"
        )
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
    return Ranks(dist.get_rank(), dist.get_world_size(), beside, here, backend, started)


def _start(device: torch.device, timeout: float | None) -> None:
    if not dist.is_available():
        raise DistributedError("this process is one of several, and this torch was built without torch.distributed")
    backend = None
    if device.type == "cpu":
        backend = "gloo"
    elif device.type == "cuda":
        # Checkpoints and flags go by gloo, from CPU to CPU.
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    waits = None if timeout is None else datetime.timedelta(seconds=timeout)
    dist.init_process_group(backend, timeout=waits)
    gone.begin()
    atexit.register(_leave)


def _leave() -> None:
    """Leaves the group when Python ends; not after an error, when the others may not answer any more."""
    if dist.is_initialized() and not gone.has_failed():
        dist.destroy_process_group()


def _device(asked: torch.device | str | None) -> torch.device:
    if asked is not None:
        device = torch.device(asked)
        if str(device) == "cuda":
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")
