"""A data loader whose batches are built once: by its workers the first time, and read by this process afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import wrapt
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from torchturbo._cached.datasets import Wrapped, count, name_of
from torchturbo._cached.kept import Kept
from torchturbo._cached.proof import Streams
from torchturbo._replay.streams import standing, stream_of
from torchturbo.errors import CacheError

_MOST = 10_000_000
"""Batches of an epoch: a sampler that goes on after that goes on for ever."""
INSTEAD = "Cache what it reads, and shuffle that: DataLoader(cached(dataset), shuffle=True, ...)"
_NAMED = (
    *("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator"),
    *("prefetch_factor", "persistent_workers", "in_order"),
)
_NO_WORKERS = {"num_workers": 0, "timeout": 0, "multiprocessing_context": None}
_NO_WORKERS |= {"prefetch_factor": None, "persistent_workers": False}
Order = list[tuple[str, Any]]


def order_of(loader: Any, streams: Streams) -> Order:
    """The indices of each batch of an epoch with its name, without a trace of having asked.

    Args:
        loader: the loader.
        streams: what its sampler draws from.

    Raises:
        CacheError: there is no end to them, or they are none that could be told apart.
    """
    found: Order = []
    with streams.apart():
        for indices in islice(loader._index_sampler, _MOST):
            name = name_of(tuple(indices) if isinstance(indices, list) else indices)
            if name is None:
                raise CacheError(
                    f"the sampler gives {indices!r}, which has no name as numbers and strings have. {INSTEAD}"
                )
            found.append((name, indices))
    if len(found) == _MOST:
        raise CacheError(f"the sampler of the loader has no end. {INSTEAD}")
    return found


def fixed_order(loader: Any, *, check: bool) -> Order:
    """The order of a loader that has the same in every epoch.

    Args:
        loader: the loader.
        check: whether to ask for it more than once.

    Raises:
        CacheError: it has another one in each.
    """
    samplers = loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)
    generators = {id(each): each for each in (loader.generator, *(getattr(it, "generator", None) for it in samplers))}
    found = [stream for each in generators.values() if (stream := stream_of("", each))]
    stood, before = [stream.read() for stream in found], standing(found)
    streams = Streams(0)
    try:
        one = order_of(loader, streams)
        drew = streams.drew or standing(found) != before
        # A few batches can come in the same order by chance.
        others = [order_of(loader, Streams(seed)) for seed in range(1, 9 if drew else 2)] if check else []
    finally:
        for stream, state in zip(found, stood, strict=True):
            stream.write(state)
    if any(other != one for other in others):
        sampler = type(getattr(loader.batch_sampler, "sampler", loader.batch_sampler or loader.sampler)).__name__
        raise CacheError(f"the loader has other batches in each epoch (its sampler: {sampler}). {INSTEAD}")
    return one


class Batches(wrapt.ObjectProxy[Any]):
    """The batches of a loader as the items of a dataset, which is in all else the loader's.

    Args:
        dataset: the loader's.
        fetch: makes a batch of its indices.
        order: the indices.
        kept: where batches are kept.
    """

    def __init__(self, dataset: Any, fetch: _MapDatasetFetcher, order: Order, kept: Kept) -> None:
        super().__init__(dataset)
        self._self_fetch = fetch
        self._self_order = order
        self._self_kept = kept

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.__wrapped__, self._self_fetch, self._self_order, self._self_kept)

    def __len__(self) -> int:
        return len(self._self_order)

    def __getitem__(self, number: int) -> Any:
        kept, (name, indices) = self._self_kept, self._self_order[number]
        kept.look()
        there, batch = kept.take(name)
        return batch if there else kept.build(name, f"batch {number}", partial(self._self_fetch.fetch, indices))

    __getitems__ = None  # so that torch asks for one at a time


class InOrder(Sampler[int]):
    """One batch after the other. Named apart from torch's, so that no other loader in a seeded block counts it.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count))


def as_it_is(batch: Any) -> Any:
    """What a batch is collated to that is one already.

    Args:
        batch: it.
    """
    return batch


def fetcher(loader: Any) -> _MapDatasetFetcher:
    """What torch makes batches with.

    Args:
        loader: the loader.
    """
    return _MapDatasetFetcher(loader.dataset, loader.batch_sampler is not None, loader.collate_fn, loader.drop_last)


class CachedLoader(Wrapped):
    """A loader that is not shuffled, whose batches are built once."""

    def __init__(self, wrapped: Any, kept: Kept, order: Order | None = None) -> None:
        super().__init__(wrapped, kept)
        self._self_order = fixed_order(wrapped, check=True) if order is None else order
        self._self_inner: Any = None
        self._self_whole = False

    def _self_around(self, wrapped: Any) -> Any:
        return type(self)(wrapped, self._self_kept.of(unwrapped(wrapped.dataset)))

    def __iter__(self) -> Iterator[Any]:
        kept, changed = self._self_kept, self._self_kept.look(self.__wrapped__)
        order = fixed_order(self.__wrapped__, check=False)
        if [name for name, _ in order] != [name for name, _ in self._self_order] and not changed:
            raise CacheError(f"the loader has other batches than when it was cached. {INSTEAD}")
        if changed:
            self._self_inner = None
        self._self_order = order
        count(self.__wrapped__)
        whole = all(kept.has(name) for name, _ in order)
        if self._self_inner is None or whole is not self._self_whole:
            # What is there is read by this process; workers that were to stay go.
            self._self_inner, self._self_whole = self._self_loader(whole), whole
        return iter(self._self_inner)

    def _self_loader(self, whole: bool) -> DataLoader[Any]:
        """The same loader, of batches: without workers where nothing has to be built."""
        loader = self.__wrapped__
        asked = {name: getattr(loader, name) for name in _NAMED if hasattr(loader, name)}
        if whole:
            asked |= _NO_WORKERS  # named, so that no block fills them in
        batches: Any = Batches(loader.dataset, fetcher(loader), self._self_order, self._self_kept)
        return DataLoader(batches, batch_size=None, sampler=InOrder(len(batches)), collate_fn=as_it_is, **asked)


def unwrapped(dataset: Any) -> Any:
    """A dataset without the caches around it.

    Args:
        dataset: any.
    """
    while isinstance(dataset, Wrapped | Batches):
        dataset = dataset.__wrapped__
    return dataset


def prove_batches(cached: CachedLoader) -> None:
    """Builds the first batch, one of the middle and the last one twice.

    Args:
        cached: a new one.

    Raises:
        CacheError: one comes out as something else.
    """
    order, kept = cached._self_order, cached._self_kept
    fetch = fetcher(cached.__wrapped__)
    chosen = sorted({0, len(order) // 2, len(order) - 1} & set(range(len(order))))

    def run(streams: Streams, backwards: bool) -> Iterator[tuple[str, str, Any]]:
        for n in reversed(chosen) if backwards else chosen:
            name, indices = order[n]
            yield name, f"batch {n}", kept.timed(streams, partial(fetch.fetch, indices))

    kept.prove(run)
