"""How long something takes: by the GPU's own clock where one works, else by the CPU's."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def clocked() -> Iterator[Callable[[], float]]:
    """A block that is timed, from idle accelerators to idle accelerators; gives the seconds afterwards.

    CUDA's events are read by the GPU itself, between the work that they stand between.
    """
    _wait()
    events: tuple[Any, Any] | None = None
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        event: Any = torch.cuda.Event
        events = event(enable_timing=True), event(enable_timing=True)
        events[0].record()
    began = time.perf_counter()
    took: list[float] = []
    yield lambda: took[0]
    if events is not None:
        events[1].record()
    _wait()
    took.append(time.perf_counter() - began)
    if events is not None:
        took[0] = events[0].elapsed_time(events[1]) / 1e3


@contextmanager
def uncollected() -> Iterator[None]:
    """A block in which Python's collector waits: it would come in one sample of many, and stop that one alone."""
    if not gc.isenabled():
        yield
        return
    try:
        gc.disable()
        yield
    finally:
        gc.enable()


def _wait() -> None:
    for module in (torch.cuda, torch.xpu):
        if module.is_available() and module.is_initialized():
            module.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
