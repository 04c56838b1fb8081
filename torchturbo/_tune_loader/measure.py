"""One epoch, or a piece of it, through a loader: how fast its batches come, and what memory that takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import psutil
import torch

from torchturbo._tune_loader.data import Growth
from torchturbo._tune_loader.loaders import Options, Source, more_workers_than_cores
from torchturbo.regions._batches import sent
from torchturbo.regions._lanes import Load, PlainLane

_GROWS = 2 * 2**20
"""Bytes in all epochs together, below which nothing is said to grow: allocators take as much and give it back."""


class Visit(NamedTuple):
    """What one visit to a loader has shown.

    Attributes:
        startup: seconds to the first batch.
        each: seconds for each batch after those that had been fetched before the clock was started.
        memory: bytes, when it ended.
        batches: how many have come.
    """

    startup: float
    each: float
    memory: int
    batches: int


def slowest(visits: Sequence[Visit]) -> Visit:
    """What counts of the visits that several ranks have made at once: they wait for each other in each step.

    Args:
        visits: one of each rank.
    """
    startup, each, memory, batches = zip(*visits, strict=True)
    return Visit(max(startup), max(each), max(memory), min(batches))


class Meter:
    """Goes through loaders.

    Args:
        source: what they load.
    """

    EPOCHS = 5
    """Epochs after which it is said whether memory grows; in the first it does anyway."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._process = psutil.Process()
        self._lane = PlainLane(torch.device("cuda")) if torch.cuda.is_available() else None

    def visit(self, options: Options, seconds: float) -> Visit:
        """Goes through a loader for some time, or to its end.

        Args:
            options: of the loader.
            seconds: how long, counted from the first batch that is not left out.
        """
        began = time.perf_counter()
        with self._going(self._source.made(options)) as batches:
            self._use(next(batches, None))
            startup = time.perf_counter() - began
            # Each worker has fetched one while the first was waited for, and these come at once.
            ahead = options["num_workers"]
            first = came = 1
            clock = time.perf_counter()
            for batch in batches:
                self._use(batch)
                came += 1
                now = time.perf_counter()
                if came <= ahead:
                    first, clock = came, now
                elif now - clock > seconds:
                    break
            took = time.perf_counter() - clock
            if came == first:
                # There were no others: what they took together is all that is known.
                took, first = time.perf_counter() - began, 0
            return Visit(startup, took / (came - first), self.memory(batches), came)

    def epochs(self, options: Options, seconds: float) -> tuple[float, Growth]:
        """What the second epoch takes to begin where workers are kept, and memory from epoch to epoch.

        Args:
            options: of the loader.
            seconds: for each epoch, at the most.
        """
        kept = dict(options)
        if options["num_workers"]:
            kept["persistent_workers"] = True
        loader = self._source.made(kept)
        restart, memory, most, least = 0.0, [], 0, 0
        try:
            for epoch in range(self.EPOCHS):
                began = time.perf_counter()
                with self._going(loader, ends=False) as batches:
                    self._use(next(batches, None))
                    came = 1
                    if epoch == 1:
                        restart = time.perf_counter() - began
                    for batch in batches if most != 1 else ():
                        self._use(batch)
                        came += 1
                        if came == most or (not most and time.perf_counter() - began > seconds):
                            break
                    if epoch:
                        memory.append(self.memory(batches))
                most = most or came
                least = came
        finally:
            if loader._iterator is not None:
                loader._iterator._shutdown_workers()
        steps = [after - before for before, after in pairwise(memory)]
        each = round(median(steps))  # what was loaded once, in one epoch, does not grow
        grows = min(steps) > 0 and each * len(steps) > _GROWS
        return restart, Growth(tuple(memory), least, each if grows else 0)

    @contextmanager
    def _going(self, loader: Any, ends: bool = True) -> Iterator[Any]:
        """A block that goes through a loader, and leaves no worker and no thread of it, unless they are kept."""
        with more_workers_than_cores():
            batches = iter(loader)
        try:
            yield batches
        finally:
            if ends and hasattr(batches, "_shutdown_workers"):
                batches._shutdown_workers()

    def _use(self, batch: Any) -> None:
        if self._lane is not None:
            sent(batch, self._lane, Load())

    def memory(self, batches: Any) -> int:
        """Bytes of this process and the workers of an iterator, what they share counted once where the system tells.

        Args:
            batches: torch's iterator.
        """
        workers = [psutil.Process(worker.pid) for worker in getattr(batches, "_workers", ()) if worker.is_alive()]
        return sum(map(_bytes, (self._process, *workers)))


def _bytes(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        # Forked workers share what they have not written to, which is in the resident size of each of them.
        return int(getattr(full, "pss", full.uss))
    except psutil.NoSuchProcess:
        return 0
    except psutil.Error:
        return int(process.memory_info().rss)
