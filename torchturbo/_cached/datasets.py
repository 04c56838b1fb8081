"""Datasets whose items are built once. Each is the dataset that it is made of in all else."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
import wrapt
from torch.utils.data import DataLoader, get_worker_info

from torchturbo._cached import blob
from torchturbo._cached.kept import END, Kept
from torchturbo._cached.proof import Streams
from torchturbo.errors import CacheError
from torchturbo.hardware import place
from torchturbo.regions._seeding import now

SAMPLES = 3
"""Items that are built twice when a cache is made."""


class Wrapped(wrapt.ObjectProxy[Any]):
    """What it wraps, with a cache.

    Args:
        wrapped: a dataset or a loader.
        kept: its cache.
    """

    def __init__(self, wrapped: Any, kept: Kept) -> None:
        super().__init__(wrapped)
        self._self_kept = kept

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.__wrapped__, self._self_kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._self_around(copy.deepcopy(self.__wrapped__, memo))

    def __copy__(self) -> Any:
        return self._self_around(copy.copy(self.__wrapped__))

    def _self_around(self, wrapped: Any) -> Any:
        return type(self)(wrapped, self._self_kept.of(wrapped))

    def __repr__(self) -> str:
        return f"cached({self.__wrapped__!r})"


def name_of(index: Any) -> str | None:
    """An index as a name; None for what is none, as a slice or a list.

    Args:
        index: what a sampler gives.
    """
    if isinstance(index, str | bytes | float | bool):
        return repr(index)
    if isinstance(index, tuple):
        names = [name_of(each) for each in index]
        return None if None in names else f"({', '.join(map(str, names))})"
    if getattr(index, "ndim", 0) or not hasattr(index, "__index__"):
        return None
    try:
        return str(index.__index__())
    except TypeError:  # a tensor of another type
        return None


class CachedDataset(Wrapped):
    """A dataset with indices, whose items are built once."""

    def __getitem__(self, index: Any) -> Any:
        name = name_of(index)
        if name is None:
            return self.__wrapped__[index]
        kept = self._self_kept
        kept.look()
        there, item = kept.take(name)
        return item if there else kept.build(name, f"item {name}", partial(self.__wrapped__.__getitem__, index))

    def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
        """The items at some indices, one by one: what is missing is seldom much."""
        return [self[index] for index in indices]

    def __iter__(self) -> Iterator[Any]:
        kind = type(self.__wrapped__)
        if hasattr(kind, "__iter__") and kind.__module__ != "builtins":
            return iter(self.__wrapped__)
        return (self[index] for index in range(len(self)))


def prove_items(cached: CachedDataset) -> None:
    """Builds the first item, one of the middle and the last one twice.

    Args:
        cached: a new one.

    Raises:
        CacheError: one comes out as something else, or nobody knows which there are.
    """
    dataset, kept = cached.__wrapped__, cached._self_kept
    try:
        count = len(dataset)
    except TypeError as error:
        raise CacheError(
            f"{kept.builder} has no length, so nobody knows which of its items to build twice as a check: give it a "
            "__len__, and items from 0 on"
        ) from error
    chosen = sorted({0, count // 2, count - 1} & set(range(count)))
    together = getattr(dataset, "__getitems__", None)

    def run(streams: Streams, backwards: bool) -> Iterator[tuple[str, str, Any]]:
        if backwards and together:
            # Loaders ask for items in this way, so it is what they have to be alike in.
            items = kept.timed(streams, partial(together, chosen))
            yield from ((str(n), f"item {n}", item) for n, item in zip(chosen, items, strict=True))
            return
        for n in reversed(chosen) if backwards else chosen:
            yield str(n), f"item {n}", kept.timed(streams, partial(dataset.__getitem__, n))

    kept.prove(run)


class Passes(Wrapped):
    """What is gone through from its beginning to its end, the same each time: an iterable dataset, a loader."""

    def __iter__(self) -> Iterator[Any]:
        kept = self._self_kept
        kept.look()
        who, number = whose(), 0
        there, end = kept.take(f"{END} {who}")
        if isinstance(self.__wrapped__, DataLoader):
            draw_as(self.__wrapped__)
            if there:
                count(self.__wrapped__)
        while there and number < end:
            there, item = kept.take(f"{number} {who}")
            if there:
                number += 1
                yield item
        if not there:
            yield from self._self_built(who, number)

    def _self_built(self, who: str, begin: int) -> Iterator[Any]:
        """The pass as it is built, from an item on."""
        kept, streams, number = self._self_kept, Streams(), 0
        for item in built(kept, self.__wrapped__, streams):
            name = f"{number} {who}"
            pieces = blob.encode(item)
            there, before = kept.take(name)
            if there:
                kept.same(f"item {number}", item, before)
            else:
                kept.keep(name, pieces)
            number += 1
            if number > begin:
                yield item
        kept.keep(f"{END} {who}", blob.encode(number))


def built(kept: Kept, source: Any, streams: Streams) -> Iterator[Any]:
    """One pass, which draws from streams of its own.

    Args:
        kept: counts what is built.
        source: what is gone through.
        streams: them.
    """
    with streams.apart():
        items = iter(source)
    while True:
        try:
            item = kept.timed(streams, items.__next__)
        except StopIteration:
            return
        yield item


def prove_passes(cached: Passes) -> None:
    """Goes through the first items twice.

    Args:
        cached: a new one.

    Raises:
        CacheError: they come out as something else.
    """
    source, kept, who = cached.__wrapped__, cached._self_kept, whose()

    def run(streams: Streams, backwards: bool) -> Iterator[tuple[str, str, Any]]:
        for number, item in enumerate(islice(built(kept, source, streams), SAMPLES)):
            yield f"{number} {who}", f"item {number}", item

    kept.prove(run, draws=isinstance(source, DataLoader))


def whose() -> str:
    """Whose pass it is: each worker of each process may go through another part."""
    worker = get_worker_info()
    of_worker, here = "" if worker is None else f"worker {worker.id} of {worker.num_workers} ", place()
    return f"{of_worker}rank {here.rank} of {here.size}"


def draw_as(loader: Any) -> None:
    """Draws what a loader draws when a loop begins, so that random numbers are where they would be without a cache.

    Args:
        loader: the loader, which is not gone through.
    """
    if now.seeding is None and get_worker_info() is None:
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


def count(loader: Any) -> None:
    """Has a block with a seed know of a loop over a loader, as without a cache; other loaders are named after it.

    Args:
        loader: the loader, which is not gone through.
    """
    if now.seeding is not None and get_worker_info() is None:
        now.seeding.epoch(loader).taken(over=True)
