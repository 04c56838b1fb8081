"""Where iterators stand: those of data loaders, and Python's own, are put back, so that each run takes the same.

A data loader's iterator cannot go back, as its sampler is a generator. So it is given what it has drawn once more:
without workers the indices, and the batches are fetched again; with workers the batches. After the last run it gives
that for the last time, and goes on by itself. Of Python's own iterators each run gets a copy.
"""

from __future__ import annotations

import copy
import gc
import inspect
import io
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader
from torch.utils.data import dataloader as loaders

from torchturbo._replay.streams import Stream
from torchturbo._replay.taken import Taken, nothing
from torchturbo.regions._loading import epoch_of

_Single: Any = loaders._SingleProcessDataLoaderIter
_Multi: Any = loaders._MultiProcessingDataLoaderIter
Place = Callable[[Any], object]
"""Puts something where an iterator was found: in a variable, an entry, an attribute."""
Streams = Callable[[], Iterable[Stream]]


class Position(Protocol):
    """Something that moves on with each run."""

    def begin(self, streams: Streams) -> None:
        """Does what has to be done before a run.

        Args:
            streams: the random streams that are kept.
        """
        ...

    def put_back(self) -> None:
        """Puts it where it was."""
        ...


def is_loaders(value: Any) -> bool:
    """Whether a value is an iterator of torch's data loader, which can be put back."""
    return type(value) in (_Single, _Multi)


class OfLoader:
    """Where an iterator of torch's data loader stands.

    Args:
        iterator: torch's.
    """

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self._yielded = iterator._num_yielded
        self._epoch = epoch_of(iterator)
        self._stood = {} if self._epoch is None else self._epoch.standing()
        self._ended = getattr(getattr(iterator, "_dataset_fetcher", None), "ended", None)
        self._taken = _earlier(iterator) or _made(iterator, self._epoch)
        self._taken.starts()

    def begin(self, streams: Streams) -> None:
        """Has it begin where it stood.

        Args:
            streams: random streams that it may move.
        """
        self._taken.rewind(runs=True)
        self._taken.streams = streams
        _put(self._iterator, self._taken)

    def put_back(self) -> None:
        """Has it give what has been taken once more."""
        self._iterator._num_yielded = self._yielded
        if self._ended is not None:
            self._iterator._dataset_fetcher.ended = self._ended
        if self._epoch is not None:
            # Indices that have been sent to workers have been sent.
            self._epoch.goes_back_to(self._stood, sent=isinstance(self._iterator, _Multi))
        self._taken.rewind(runs=False)
        self._taken.streams = tuple
        _put(self._iterator, self._taken if len(self._taken) else self._taken.beneath)


def _place(iterator: Any) -> tuple[Any, str]:
    """Whose attribute stands for what is taken from outside, and which."""
    if isinstance(iterator, _Multi):
        return iterator, "_next_data"
    if iterator._dataset_kind == loaders._DatasetKind.Iterable:
        return iterator._dataset_fetcher, "dataset_iter"
    return iterator, "_sampler_iter"


def _put(iterator: Any, what: Any) -> None:
    holder, name = _place(iterator)
    epoch = epoch_of(iterator)
    if what is None:
        vars(holder).pop(name, None)
    else:
        vars(holder)[name] = what.__next__ if name == "_next_data" else what
    if epoch is not None and name == "_sampler_iter":
        epoch.indices = what


def _earlier(iterator: Any) -> Taken | None:
    """What a measurement before this one has taken, and nobody has been given since."""
    holder, name = _place(iterator)
    earlier = vars(holder).get(name)
    earlier = getattr(earlier, "__self__", earlier)
    return earlier if isinstance(earlier, Taken) else None


def _made(iterator: Any, epoch: Any) -> Taken:
    # The iterator holds what is made, which must not hold it: workers end when nobody holds it any more.
    its = weakref.ref(iterator)
    holder, name = _place(iterator)
    if name == "_next_data":
        again = nothing if epoch is None else lambda ended: epoch.taken(over=ended)
        made = Taken(lambda: _Multi._next_data(its()), None, copied, again)
    else:
        under = vars(holder)[name]
        made = Taken(under.__next__, under, copy.copy if name == "_sampler_iter" else copied)
    beneath = made.beneath
    made.used_up = lambda: _put(its(), beneath)
    return made


def copied(batch: Any) -> Any:
    """A batch that the code may change, as it has come from a worker.

    Args:
        batch: anything.
    """
    return tree_map(_copy, batch)


def _copy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    with torch.no_grad():
        new = value.clone()
    return new.pin_memory() if value.device.type == "cpu" and value.is_pinned() else new


class Resting:
    """Workers of a data loader that wait for its next epoch: the runs start workers of their own.

    Args:
        loader: has them.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader: Any = loader
        self._iterator = self._loader._iterator

    def begin(self, streams: Streams) -> None:
        """Takes them out of its hands."""
        self._loader._iterator = None

    def put_back(self) -> None:
        """Gives them back."""
        self._loader._iterator = self._iterator


class Exchanged:
    """An iterator of Python's own: each run gets a copy of it, wherever it was found.

    Args:
        iterator: stays as it is.
        places: where it was found.
    """

    def __init__(self, iterator: Any, places: list[Place]) -> None:
        self._iterator = iterator
        self._places = places

    def begin(self, streams: Streams) -> None:
        """Puts a copy in its places."""
        new = copy_of(self._iterator)
        for place in self._places:
            place(new)

    def put_back(self) -> None:
        """Puts it in its places."""
        for place in self._places:
            place(self._iterator)


_CONTAINERS: tuple[Any, ...] = (
    [],
    (),
    range(1),
    range(2**70),
    "",
    "é",
    b"",
    bytearray(),
    {},
    {}.values(),
    {}.items(),
    set(),
)
_OVER_CONTAINERS = (*(type(iter(each)) for each in _CONTAINERS), type(reversed([])))
_OVER_ITERATORS = (
    zip,
    enumerate,
    itertools.cycle,
    itertools.islice,
    itertools.chain,
    itertools.count,
    itertools.repeat,
)


def copy_of(iterator: Any) -> Any:
    """An iterator that gives what another one will give, which stays as it is; None where that cannot be made.

    Args:
        iterator: any. A data loader's stands for itself, as it can be put back.
    """
    if is_loaders(iterator):
        return iterator
    if type(iterator) in _OVER_CONTAINERS:
        return copy.copy(iterator)
    if type(iterator) not in _OVER_ITERATORS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # up to Python 3.13 these can be copied
            kind, args, *state = iterator.__reduce__()
            new = [copy_of(each) if hasattr(type(each), "__next__") else each for each in args]
            if any(each is None and arg is not None for each, arg in zip(new, args, strict=True)):
                return None
            made = kind(*new)
            if state and state[0] is not None:
                made.__setstate__(copy_of_state(state[0]))
            return made
    except (TypeError, AttributeError):
        return None


def copy_of_state(state: Any) -> Any:
    """The state of an iterator, with iterators and lists in it copied."""
    if isinstance(state, tuple):
        return tuple(map(copy_of_state, state))
    if isinstance(state, list):
        return list(state)
    return copy_of(state) if hasattr(type(state), "__next__") else state


def is_new(iterator: Any) -> bool:
    """Whether nothing can have been taken of an iterator: a generator that has not begun, a file that is written to."""
    if isinstance(iterator, io.IOBase):
        return iterator.closed or not iterator.readable()
    return inspect.isgenerator(iterator) and inspect.getgeneratorstate(iterator) == inspect.GEN_CREATED


def inside(iterator: Any) -> list[Any]:
    """What an iterator of Python's goes through, and what others do that it goes through.

    Args:
        iterator: one that `copy_of` copies.
    """
    found = gc.get_referents(iterator)
    return [
        *found,
        *(
            inner
            for each in found
            if hasattr(type(each), "__next__") and not is_loaders(each)
            for inner in inside(each)
        ),
    ]
