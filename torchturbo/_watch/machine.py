"""What the machine does while a loop runs: its GPU by NVML, memory, and how often torch compiled."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from torchturbo import hardware
from torchturbo.hardware import Reading

_NO_THROTTLING = ("idle", "application clocks")
"""What NVML says of clocks that nothing holds down but what somebody wants, or that there is nothing to do."""


@dataclass(frozen=True, slots=True)
class OfMachine:
    """What the machine does at a moment. What nobody tells is None.

    Attributes:
        gpu: torch's index of the GPU; None without one.
        utilization: how busy the GPU is, 0 to 1.
        power: watts that its board draws.
        temperature: of its chip, in degrees Celsius.
        throttled: why its clock is held down, in words; empty where it is not.
        memory: bytes in use: of the GPU those of torch's tensors, else of this process.
        memory_peak: the most that they ever were in this process.
        memory_total: bytes that the GPU has.
    """

    gpu: int | None = None
    utilization: float | None = None
    power: float | None = None
    temperature: int | None = None
    throttled: tuple[str, ...] = ()
    memory: int | None = None
    memory_peak: int | None = None
    memory_total: int | None = None


def current_gpu() -> int | None:
    """The GPU that this thread works on, or None where torch has started none."""
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def of_machine(gpu: int | None, read: Callable[[], tuple[Reading, ...]]) -> OfMachine:
    """What the machine does now.

    Args:
        gpu: torch's index of the GPU that the loop works on; None where torch has started none.
        read: gives what GPUs do.
    """
    memory, peak = _of_process() if gpu is None else _of_gpu(gpu)
    if gpu is None:  # those that are there do nothing for this process
        return OfMachine(memory=memory, memory_peak=peak)
    reading = next((each for each in read() if each.index == gpu), None)
    if reading is None:
        return OfMachine(gpu=gpu, memory=memory, memory_peak=peak)
    gpus = hardware.detect().gpus
    return OfMachine(
        gpu=gpu,
        utilization=None if reading.utilization is None else reading.utilization / 100,
        power=reading.power,
        temperature=reading.temperature,
        throttled=tuple(why for why in reading.throttle or () if not why.startswith(_NO_THROTTLING)),
        memory=memory,
        memory_peak=peak,
        memory_total=gpus[gpu].memory if gpu < len(gpus) else None,
    )


def _of_gpu(index: int) -> tuple[int | None, int | None]:
    return torch.cuda.memory_allocated(index), torch.cuda.max_memory_allocated(index)


def _of_process() -> tuple[int | None, int | None]:
    """Bytes of memory that this process has, and the most that it had."""
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None, peak
    return now, max(now, peak)


def compiled() -> int:
    """How many graphs `torch.compile` has compiled so far; nothing is imported to be asked."""
    utils: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])
