"""Data loaders that are iterated in a region, one batch ahead on the GPU.

While some thread has such a region open, `DataLoader.__iter__` runs other code, which puts an `Ahead` around torch's
iterator in a thread with a region. Loaders that are iterated within the fetching of a batch are left alone.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from torchturbo._dynamo import untraced
from torchturbo._words import some
from torchturbo.hardware import detect
from torchturbo.regions._ahead import Ahead, fetching, is_fetching
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._lanes import Lane, lane_to


class _Asked(Asked):
    """What a thread's region asks for, and how many iterations have come to what in it."""

    def begin(self) -> None:
        """Forgets what has come of it."""
        self.told: Counter[str] = Counter()


def _lane() -> Lane | None:
    """The way to the GPU that work runs on here, or None."""
    device = detect().device_type
    return lane_to(torch.device(device)) if device == "cuda" and torch.cuda.is_available() else None


lane = _lane
"""What says where batches go: tests put something in its place that needs no GPU."""


@untraced
def _iterate(loader: Any) -> Any:
    """`DataLoader.__iter__`."""
    asked = _ASKING.thread.its
    if not asked.wanted or is_fetching() or get_worker_info() is not None:
        return _ITERATES.theirs(loader)
    way = lane()
    if way is None:
        asked.told["left alone, as torch finds no GPU"] += 1
        return _ITERATES.theirs(loader)
    with fetching():
        iterator = _ITERATES.theirs(loader)
    asked.told[f"prefetched to {way.device}"] += 1
    return Ahead(iterator, way)


def _standing_in(self: Any) -> Any:
    call: Any = "ours"
    return call(self)


_FUNCTION: Any = inspect.unwrap(DataLoader.__iter__)
_ITERATES = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _iterate))
_ASKING = Asking(_Asked, _ITERATES.settle)
PREFETCHING = _ASKING.cell("a region's prefetching of data loaders")
"""Whether a thread's region prefetches."""


def told() -> str | None:
    """What has become of it in this thread's block so far, in words, or None where it asks for nothing."""
    asked = _ASKING.thread.its
    if not asked.wanted:
        return None
    if not asked.told:
        return "no data loader has been iterated in this thread's block yet"
    said = [f"{some(times, 'iteration')} over data loaders: {what}" for what, times in asked.told.items()]
    return "; ".join(said)
