"""The seed in force, and what is remembered of a block that has one: how often it has gone through which loader."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

from torch import Tensor

from torchturbo.errors import DeterminismWarning
from torchturbo.regions._streams import Once, seeds
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Raw, put_in


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
        skip: the batches that a run before this one has had of it.

    Attributes:
        batch: how many batches have been handed out to be fetched.
        indices: what torch takes the indices from in this iteration.
        sampling: the streams in which the sampler draws, as they stand.
        own_init: whether workers run an init function of the user's, which may seed.
        skip: the batches that are still to be passed over.
        generator: where the loader's own generator stood when it began; None if it has none.
        iterator: who goes through it.
        over: whether it has been gone through.
    """

    __slots__ = (
        "_batches",
        "_had",
        "_words",
        "batch",
        "generator",
        "indices",
        "iterator",
        "over",
        "own_init",
        "sampling",
        "skip",
    )

    def __init__(self, words: tuple[object, ...], loader: Any, skip: int = 0) -> None:
        self._words = self._batches = words
        self._had = self.skip = skip
        self.batch = 0
        self.indices: object = None
        self.generator = _generator(loader)
        self.iterator: Callable[[], Any] = _nobody
        self.over = False
        self.own_init = loader.worker_init_fn is not None
        self.sampling: tuple[Write, ...] = self.start

    @property
    def start(self) -> tuple[Write, ...]:
        """The streams in which the sampler starts."""
        return seeds(derived(*self._words, "order"), Once)

    def comes_of(self, seed: int) -> None:
        """Has the streams of its batches come from a number that the loader's own generator has given."""
        self._batches = "generator", seed, self._words[-1]

    @property
    def batches(self) -> int | None:
        """How many batches the code has had of it; None where that is all, or nobody goes through it any more."""
        iterator = self.iterator()
        if iterator is None or self.over:
            return None
        had = self._had + int(iterator._num_yielded)
        return None if had == _length(iterator) else had

    def exhaust(self) -> None:
        """Has the sampler come to its end, where it may draw once more from the loader's own generator."""
        iterator = self.iterator()
        if iterator is not None and self.generator is not None and self.batches is None:
            next(iterator._sampler_iter, None)

    def seed_of(self, batch: object) -> int:
        """What the streams of a batch start from, whoever fetches it."""
        return derived(*self._batches, batch)


def _nobody() -> None:
    pass


def _generator(loader: Any) -> Tensor | None:
    return None if loader.generator is None else loader.generator.get_state()


class Position(TypedDict):
    """How far a block is with a loader.

    Attributes:
        iterations: how often it was begun.
        batches: how many batches the code has had of the last of them; None where that is over.
        generator: where the loader's own generator stood when that one began, or stands; None if it has none.
    """

    iterations: int
    batches: int | None
    generator: Tensor | None


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
        self._newest: dict[str, Epoch] = {}
        self._resumed: dict[str, Position] = {}

    def epoch(self, loader: Any) -> Epoch:
        """The next iteration over a loader."""
        if loader not in self._names:
            # Not by module: a script has another name as __main__ than as a module.
            alike = (
                f"{type(loader.dataset).__qualname__}({_length(loader.dataset)}), {type(loader.sampler).__qualname__}"
            )
            self._names[loader] = f"{alike}, {self._alike[alike]}"
            self._alike[alike] += 1
        name = self._names[loader]
        skip = 0
        if (resumed := self._resumed.pop(name, None)) is not None:
            self._epochs[name] = resumed["iterations"]
            if resumed["generator"] is not None and loader.generator is not None:
                loader.generator.set_state(resumed["generator"])
            if resumed["batches"] is not None:
                self._epochs[name] -= 1
                skip = resumed["batches"]
        number = self._epochs[name]
        self._epochs[name] += 1
        epoch = self._newest[name] = Epoch((self.seed, name, number), loader, skip)
        return epoch

    def positions(self) -> dict[str, Position]:
        """How far the block is with each loader, by the loader's name."""
        found = dict(self._resumed)
        alive = {name: loader for loader, name in self._names.items()}
        for name, newest in self._newest.items():
            newest.exhaust()
            batches, generator = newest.batches, newest.generator
            if batches is None and name in alive:
                generator = _generator(alive[name])
            found.setdefault(name, Position(iterations=self._epochs[name], batches=batches, generator=generator))
        return found

    def resume(self, positions: Mapping[str, Position]) -> None:
        """Has each loader go on, the next time that it is iterated.

        Args:
            positions: what `positions` has returned in another run.
        """
        self._resumed = dict(positions)

    def tell_of_what_was_not_resumed(self) -> None:
        """Warns where a loader that was to go on in the middle of an epoch has never been iterated."""
        for name, position in self._resumed.items():
            if position["batches"] is not None:
                warnings.warn(
                    f"the state that was loaded was in the middle of an epoch of a loader of {name}, and none like "
                    "it has been iterated in this block: loaders are told apart by class and length of their dataset, "
                    "by class of their sampler and the order in which those that are alike are first iterated",
                    DeterminismWarning,
                    stacklevel=2,
                )

    def __repr__(self) -> str:
        return f"<seeding {self.seed}>"


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


def seeding_in(writes: tuple[Write, ...]) -> Seeding | None:
    """What is remembered of a block that writes these, or None where it has no seed.

    Args:
        writes: its cells and edits.
    """
    put: Seeding | None = put_in(SEEDING, writes)
    return put


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
