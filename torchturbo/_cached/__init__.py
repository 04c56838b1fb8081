"""What is the same in every epoch, built once: the items of a dataset, or the batches of a loader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader, IterableDataset

from torchturbo._cached.data import CacheStats
from torchturbo._cached.datasets import CachedDataset, Passes, Wrapped, prove_items, prove_passes
from torchturbo._cached.kept import Kept
from torchturbo._cached.loaders import CachedLoader, prove_batches, unwrapped
from torchturbo._cached.room import limit_of
from torchturbo._cached.shared import must_be_possible
from torchturbo._told import progress
from torchturbo.errors import OptionValueError, TargetError

__all__ = ["Cache", "CacheStats", "cache_of", "cached"]
T = TypeVar("T")


def cached(source: T, where: str | os.PathLike[str] = "memory", max_bytes: int | str | None = None) -> T:
    """A dataset whose items, or a loader whose batches, are built once and kept.

    What comes out is what the dataset gives, bit for bit, in memory of its own: writing to it changes nothing that is
    kept. Workers, forked or spawned, share what is kept in memory, and whoever needs an item first builds it. In a
    folder it is there for the next run too, and for other ranks. An item is found by what it comes of: the dataset's
    attributes by their content, the files they name, the code of its class and of what that calls, the function that
    collates. What changes of these makes another item.

    Three items are built twice at once, from other random numbers and in another order, and what is not the same is
    refused. Building an item, and taking one, leaves random numbers where they were.

    Args:
        source: a dataset with indices; an iterable dataset, whose passes are kept as a whole; or a loader that is not
            shuffled.
        where: ``"memory"``, or a folder, which is made.
        max_bytes: what may be taken at most, in bytes or as ``"2 GB"``; by default half of what is free. In a folder it
            counts all that is in it. What has no room is built each time, and a `CacheWarning` says so.

    Returns:
        the same kind of thing, with all attributes of `source`.

    Raises:
        CacheError: it is random, differs from epoch to epoch, or cannot be kept; the message says what differs.
        OptionValueError: `where` or `max_bytes` is none.
        TargetError: `source` is no dataset and no loader.
        UnsupportedHere: on Windows.
    """
    asked: Any = source
    _must_be_data(asked)
    given: Any = where
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise OptionValueError(f"where={where!r}: expected 'memory', or the path of a folder")
    must_be_possible()
    folder = None if where == "memory" else Path(where)
    limit = limit_of(max_bytes, folder)
    made: Any
    if isinstance(asked, DataLoader):
        also = {name: getattr(asked, name) for name in ("collate_fn", "drop_last", "worker_init_fn")}
        also["batches"] = asked.batch_sampler is None
        builder = f"DataLoader of {type(unwrapped(asked.dataset)).__name__}"
        if not isinstance(asked.dataset, IterableDataset) and type(asked).__iter__ is DataLoader.__iter__:
            made = CachedLoader(asked, Kept(unwrapped(asked.dataset), also, folder, limit, builder))
            prove_batches(made)
        else:
            also |= {"batch_size": asked.batch_size, "num_workers": asked.num_workers, "__iter__": type(asked).__iter__}
            made = Passes(asked, Kept(unwrapped(asked.dataset), also, folder, limit, builder))
            prove_passes(made)
    elif isinstance(asked, IterableDataset) or not hasattr(type(asked), "__getitem__"):
        made = Passes(asked, Kept(asked, {}, folder, limit))
        prove_passes(made)
    else:
        made = CachedDataset(asked, Kept(asked, {}, folder, limit))
        prove_items(made)
    return made  # type: ignore[no-any-return]


def _must_be_data(source: Any) -> None:
    if isinstance(source, Wrapped):
        raise TargetError(f"{source!r} is cached already")
    is_data = hasattr(type(source), "__getitem__") or hasattr(type(source), "__iter__")
    if isinstance(source, type | str | bytes | dict) or not is_data or hasattr(type(source), "__next__"):
        what = f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
        raise TargetError(f"cached() takes a dataset or a DataLoader, and this is {what}: write cached(dataset)")


class Cache:
    """The cache of a dataset or a loader.

    Args:
        data: what `cached` has returned.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._kept: Kept = data._self_kept

    def stats(self) -> CacheStats:
        """What is kept, and what has been done in this run, in all its workers."""
        return self._kept.stats()

    def fill(self, num_workers: int = 0) -> CacheStats:
        """Builds what is missing now, and says how far it is where a person looks on.

        Args:
            num_workers: processes that build items of a dataset. A loader has its own.
        """
        data: Any = self._data
        if isinstance(data, CachedDataset):
            data = DataLoader(data, batch_size=None, collate_fn=_nothing, num_workers=num_workers)  # type: ignore[arg-type]
        with progress(f"building {self._kept.builder}") as say:
            for number, _ in enumerate(data, start=1):
                say(f"{number}")
        return self.stats()

    def clear(self) -> None:
        """Forgets the items, which are built again when they are next asked for. No worker may be reading."""
        self._kept.place.clear()

    def clear_others(self, days: float = 0) -> int:
        """Removes items of other keys from the folder: those of inputs that have changed since, or of other datasets.

        Args:
            days: only those that no run has opened for so long.

        Returns:
            how many bytes that were.
        """
        return self._kept.clear_others(days)


def _nothing(_: Any) -> None:
    return None


def cache_of(data: Any) -> Cache:
    """The cache of what `cached` has returned, to be asked, filled and cleared.

    Args:
        data: a dataset or a loader.

    Raises:
        TargetError: it has none.
    """
    if not isinstance(data, Wrapped):
        raise TargetError(f"a {type(data).__name__} has no cache: pass what cached(...) has returned")
    return Cache(data)
