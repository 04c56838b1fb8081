"""The seed in force, and what is remembered of a block that has one: how often it has gone through which loader."""

from __future__ import annotations

import os
from collections import Counter
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

from torchturbo.regions._streams import Once, seeds
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Raw


def derived(*words: object) -> int:
    """A seed of 64 bits that comes of these words and of nothing else.

    Args:
        words: numbers and names.
    """
    return int.from_bytes(blake2b("/".join(map(str, words)).encode(), digest_size=8).digest(), "little")


class Epoch:
    """One iteration over a loader, from its beginning: where its streams come from, and how far it is.

    Args:
        words: what its streams come from.
        loader: the loader.

    Attributes:
        batch: how many batches have been handed out to be fetched.
        indices: what torch takes the indices from in this iteration.
        sampling: the streams in which the sampler draws, as they stand.
        own_init: whether workers run an init function of the user's, which may seed.
    """

    __slots__ = ("_batches", "_words", "batch", "indices", "own_init", "sampling")

    def __init__(self, words: tuple[object, ...], loader: Any) -> None:
        self._words = self._batches = words
        self.batch = 0
        self.indices: object = None
        self.own_init = loader.worker_init_fn is not None
        self.sampling: tuple[Write, ...] = self.start

    @property
    def start(self) -> tuple[Write, ...]:
        """The streams in which the sampler starts."""
        return seeds(derived(*self._words, "order"), Once)

    def comes_of(self, seed: int) -> None:
        """Has the streams of its batches come from a number that the loader's own generator has given."""
        self._batches = "generator", seed, self._words[-1]

    def seed_of(self, batch: object) -> int:
        """What the streams of a batch start from, whoever fetches it."""
        return derived(*self._batches, batch)


class Seeding:
    """One entry of a block with a seed.

    Loaders are told apart by the class and the length of their dataset and by the class of their sampler, and those
    that are alike by which was iterated first: so one more loader in a block moves no other.

    Args:
        seed: at least 0 and less than 2**32.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._alike: Counter[str] = Counter()
        self._epochs: Counter[str] = Counter()

    def epoch(self, loader: Any) -> Epoch:
        """The next iteration over a loader."""
        if loader not in self._names:
            alike = f"{_class(loader.dataset)}({_length(loader.dataset)}), {_class(loader.sampler)}"
            self._names[loader] = f"{alike}, {self._alike[alike]}"
            self._alike[alike] += 1
        name = self._names[loader]
        number = self._epochs[name]
        self._epochs[name] += 1
        return Epoch((self.seed, name, number), loader)

    def __repr__(self) -> str:
        return f"<seeding {self.seed}>"


def _class(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _length(dataset: Any) -> object:
    try:
        return len(dataset)
    except Exception:
        return "unknown"  # whatever an iterable dataset says to this


class _Now:
    """What is in force, and who is to be told when that begins and ends."""

    def __init__(self) -> None:
        self.seeding: Seeding | None = None
        self.exchanges: tuple[Any, ...] = ()


now = _Now()


def _read() -> Seeding | None:
    return now.seeding


def _write(raw: Seeding | None, over: Raw) -> None:
    was, now.seeding = now.seeding, raw
    if (was is None) != (raw is None):
        for exchange in now.exchanges:
            (exchange.closed if raw is None else exchange.opened)()


SEEDING = Cell("the seed", "process", _read, _write)

_VARIABLE = "PYTHONHASHSEED"


def _read_variable() -> str | None:
    return os.environ.get(_VARIABLE)


def _write_variable(raw: str | None, over: Raw) -> None:
    if raw is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = raw


HASHES = Cell(_VARIABLE, "process", _read_variable, _write_variable)
"""The order of sets of strings in processes that are started meanwhile; this one has read it when it started."""
