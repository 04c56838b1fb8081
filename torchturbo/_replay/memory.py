"""Bytes of tensors that a run has at once: what torch's allocators tell, from one moment on, of all that they give out.

It is told by the first of torch's profilers, which is silent and changes nothing: the peak statistics of a GPU are the
user's, and whoever sets them back cannot bring them back; and the process's own peak (VmHWM) only ever grows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchturbo._replay.bits import parts, unseen
from torchturbo._replay.kept import Keeper
from torchturbo._replay.search import Search

_MARK = "torchturbo: from here on"
_C: Any = torch._C


class Allocations:
    """What has been given out and taken back in a block.

    Attributes:
        growth: bytes beyond those of the moment of `mark`, at the peak since then, by type of device; after the block.
    """

    def __init__(self) -> None:
        self.growth: dict[str, int] = {}

    def mark(self) -> None:
        """Says that what counts begins now."""
        with torch.autograd.profiler.record_function(_MARK):
            pass

    def read(self, threads: Iterable[Iterable[Any]]) -> None:
        """Adds up what has been recorded.

        Args:
            threads: the events of each thread, in order; those after the first `mark` count.
        """
        events = [event for thread in threads for event in thread]
        mark = next(event for event in events if event.name() == _MARK)
        # Backward runs in threads of its own on a GPU. Sorting keeps the order within each.
        timed = sorted(((mark.cpu_elapsed_us(event), event) for event in events), key=lambda each: each[0])
        ordered = [event for _, event in timed] if len({event.thread_id() for event in events}) > 1 else events
        after = ordered[next(n for n, event in enumerate(ordered) if event is mark) :]
        for device, of in (("cpu", "cpu_memory_usage"), ("cuda", "cuda_memory_usage")):
            now = peak = 0
            for event in after:
                if event.kind() == "memory_alloc":
                    now += getattr(event, of)()
                    peak = max(peak, now)
            self.growth[device] = peak


@contextmanager
def allocations() -> Iterator[Allocations]:
    """A block in which allocations of this thread, and of backward's, are recorded.

    Raises:
        RuntimeError: somebody else is profiling in this thread.
    """
    found = Allocations()
    kind = torch._C._profiler
    config: Any = kind.ProfilerConfig(
        kind.ProfilerState.CPU, False, True, False, False, False, kind._ExperimentalConfig()
    )
    # What waits for the collector is not the run's, and torch warns where it meets memory that it knows nothing of.
    gc.collect()
    _C._autograd._enable_profiler_legacy(config)
    threads: Any = None
    try:
        yield found
    finally:
        threads = _C._autograd._disable_profiler_legacy()
    found.read(threads)


def held(keeper: Keeper, search: Search) -> dict[str, int]:
    """Bytes that a run begins with, by type of device: of all tensors that it reaches now, and their gradients.

    Args:
        keeper: knows the tensors.
        search: knows the optimizers.
    """
    memory: dict[tuple[str, int], int] = {}
    with unseen():
        for tensor in _reached(keeper, search):
            for _, part in parts(tensor):
                if part.layout is torch.strided and (storage := part.untyped_storage()).data_ptr():
                    memory[part.device.type, storage.data_ptr()] = storage.nbytes()
    found: dict[str, int] = {}
    for (device, _), size in memory.items():
        found[device] = found.get(device, 0) + size
    return found


def _reached(keeper: Keeper, search: Search) -> Iterator[Tensor]:
    kept = list(keeper.tensors.values())
    # A gradient that a run has thrown away is held by the keeper alone.
    gradients = {id(each.grad) for each in kept if each.grad is not None}
    for each in kept:
        if id(each.tensor) not in gradients:
            yield each.tensor
            if each.tensor.is_leaf and each.tensor.grad is not None:
                yield each.tensor.grad
    for _, optimizer in search.optimizers.values():
        for state in optimizer.state.values():
            yield from (its for its in (state.values() if isinstance(state, dict) else ()) if isinstance(its, Tensor))


def peak(run: Callable[[], object], keeper: Keeper, search: Search) -> int:
    """Bytes of tensors that a second run in succession has at once at its peak, on the device that it runs on.

    The first run makes what stays: gradients, and states of optimizers. On a GPU only its memory counts.

    Args:
        run: runs it once.
        keeper: keeps what it reaches.
        search: knows what that is.

    Raises:
        RuntimeError: somebody else is profiling in this thread.
    """
    with allocations() as found:
        run()
        began = held(keeper, search)
        found.mark()
        run()
    device = "cuda" if began.get("cuda") or found.growth["cuda"] else "cpu"
    return began.get(device, 0) + found.growth[device]
