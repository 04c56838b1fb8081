"""One iteration over a data loader in a block with a seed: where its streams come from, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from torchturbo.regions._streams import Once, seeds
from torchturbo.settings._base import Write


def derived(*words: object) -> int:
    """A seed of 64 bits that comes of these words and of nothing else.

    Args:
        words: numbers and names.
    """
    return int.from_bytes(blake2b("/".join(map(str, words)).encode(), digest_size=8).digest(), "little")


def length(sized: Any) -> object:
    """How long something is, or in words that nobody knows.

    Args:
        sized: a dataset or a sampler.
    """
    try:
        return len(sized)
    except Exception:
        return "unknown"  # whatever an iterable dataset says to this


_ticks = count()


class _Here(threading.local):
    notes: list[Callable[[], None]] | None = None


_here = _Here()


@contextmanager
def later(notes: list[Callable[[], None]]) -> Iterator[None]:
    """A block that fetches for code which has not asked yet: what that takes is noted when it does.

    Args:
        notes: gets what is to be called then.
    """
    outer, _here.notes = _here.notes, notes
    try:
        yield
    finally:
        _here.notes = outer


def noted(note: Callable[[], None]) -> None:
    """Does something now; or when the code asks for it, where somebody fetches for it ahead of that.

    Args:
        note: what is to be done with a batch that is handed out.
    """
    if _here.notes is None:
        note()
    else:
        _here.notes.append(note)


_OF_THE_CODE = "had", "over", "touched"
_OF_THE_SAMPLER = "batch", "drawn", "sampling", "skip", "_back", "_back_at"


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
        had: the batches that the code has had of it, in a run before this one too.
        began: where the loader's own generator stood when it began; None if it has none.
        drawn: whether the sampler has come to its end.
        over: whether the code has come to its end.
        touched: when the code last took something of it, compared with other iterations.
    """

    __slots__ = (
        "_back",
        "_back_at",
        "_batches",
        "_iterator",
        "_loader",
        "_words",
        "batch",
        "began",
        "drawn",
        "had",
        "indices",
        "over",
        "own_init",
        "sampling",
        "skip",
        "touched",
    )

    def __init__(self, words: tuple[object, ...], loader: Any, skip: int = 0) -> None:
        self._words = self._batches = words
        self._loader = ref(loader)
        self._iterator: Any = None
        self.had = self.skip = skip
        self.batch = 0
        self.indices: object = None
        self.began: Tensor | None = None if loader.generator is None else loader.generator.get_state()
        self._back: Tensor | None = None
        self._back_at: int | None = None
        self.drawn = self.over = False
        self.touched = next(_ticks)
        self.own_init = loader.worker_init_fn is not None
        self.sampling: tuple[Write, ...] = self.start

    @property
    def start(self) -> tuple[Write, ...]:
        """The streams in which the sampler starts."""
        return seeds(derived(*self._words, "order"), Once)

    def comes_of(self, seed: int) -> None:
        """Has the streams of its batches come from a number that the loader's own generator has given."""
        self._batches = "generator", seed, self._words[-1]

    def goes_through(self, iterator: Any) -> None:
        """Notes who goes through it.

        Args:
            iterator: torch's.
        """
        self._iterator = ref(iterator)
        self.indices = iterator._sampler_iter

    def taken(self, *, over: bool = False) -> None:
        """Notes that the code takes a batch, or finds none left.

        Args:
            over: whether it finds none.
        """
        if _here.notes is not None:
            _here.notes.append(partial(self.taken, over=over))
            return
        self.over, self.touched = over, next(_ticks)
        self.had += not over

    def standing(self) -> dict[str, Any]:
        """How far it is, for `goes_back_to`."""
        return {name: getattr(self, name) for name in (*_OF_THE_CODE, *_OF_THE_SAMPLER)}

    def goes_back_to(self, stood: dict[str, Any], *, sent: bool) -> None:
        """Goes back to where it was.

        Args:
            stood: what `standing` has returned.
            sent: whether indices that have been drawn stay drawn, as workers have them.
        """
        for name in _OF_THE_CODE if sent else stood:
            setattr(self, name, stood[name])

    @property
    def number(self) -> int:
        """How many iterations over the loader there were before it."""
        number = self._words[-1]
        assert isinstance(number, int)
        return number

    @property
    def alive(self) -> bool:
        """Whether somebody may still go on with it."""
        iterator = None if self._iterator is None else self._iterator()
        return iterator is not None and iterator._sampler_iter is self.indices and not self.over

    @property
    def complete(self) -> bool:
        """Whether the code has had every batch, as far as that can be known before it asks for one more."""
        iterator = None if self._iterator is None else self._iterator()
        of = self._loader() if iterator is None else iterator
        return self.over or (of is not None and self.had == length(of._index_sampler))

    @property
    def ends(self) -> bool:
        """Whether the code has had every batch, and the sampler has not come to its end yet."""
        return self.alive and self.complete and not self.drawn

    def goes_back(self, state: Tensor | None, at: int | None) -> None:
        """Has the loader's own generator stand somewhere else once as much has been drawn as in the run before.

        Others draw from it too: other loops over the loader, other loaders that it is shared with.

        Args:
            state: where; None for a loader without one.
            at: after how many batches' indices; None for their end.
        """
        if at != 0:
            self._back, self._back_at = state, at

    def draws(self, *, end: bool = False) -> None:
        """Notes that the sampler has given a batch's indices, or has come to its end.

        Args:
            end: whether it has.
        """
        self.drawn = end
        self.batch += not end
        loader = self._loader()
        if self._back is not None and loader is not None and (end or self.batch == self._back_at):
            loader.generator.set_state(self._back)
            self._back = None

    def generator_afterwards(self, generator: torch.Generator) -> Tensor:
        """Where a loader's generator stands; once it is over, if that is so but for the sampler's last draw.

        Args:
            generator: the loader's own.
        """
        loader = self._loader()
        state: Tensor = generator.get_state()
        sampler = None if loader is None else loader.sampler
        if not self.ends or type(sampler) is not RandomSampler or sampler.replacement:
            return state
        # Having given all indices it draws another order, of which it takes what its number of samples is more by.
        ahead = torch.Generator(generator.device)
        ahead.set_state(state)
        torch.randperm(len(sampler.data_source), generator=ahead)
        return ahead.get_state()

    def seed_of(self, batch: object) -> int:
        """What the streams of a batch start from, whoever fetches it."""
        return derived(*self._batches, batch)
