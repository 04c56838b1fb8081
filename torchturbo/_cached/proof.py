"""Whether what is built comes out the same whatever the random numbers are, by building it more than once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from torch import Tensor

from torchturbo._cached import blob
from torchturbo._replay.bits import parts, same_bits, unseen
from torchturbo._replay.values import Said, leaves
from torchturbo.errors import CacheError
from torchturbo.regions._streams import seeds, streams
from torchturbo.settings._base import Cell

MORE = 6
"""Builds more of what draws random numbers: an augmentation with even odds comes out alike in all once in 64 times."""
RANDOM = (
    "Cache what comes before the random part, and do that to what the cache gives (augmentations, masks, sampling), "
    "or have it draw from a generator of its own that the index seeds: random.Random(index)"
)


class Streams:
    """The streams of random numbers of this process, as they are for a while, apart from the code around.

    Args:
        seed: what they start from; None for where they stand.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._stand: list[tuple[Cell, Any]] | None = None
        self.drew: set[str] = set()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A block that has them go on, and puts those of the code around back.

        Other threads draw from the same streams. So a thread that is not the main one leaves them alone: what it put
        back, it would take from the others.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        outside = [(cell, cell.read()) for cell in streams()]
        begin = self._stand if self._stand is not None else outside
        try:
            self._put(begin, outside)
            if self._stand is None and self._seed is not None:
                for cell, edit in seeds(self._seed):
                    seed = edit(None)
                    cell.write(seed, seed)
                begin = [(cell, cell.read()) for cell in streams()]
            yield
        finally:
            now = self._stand = [(cell, cell.read()) for cell in streams()]
            stood = dict(begin)
            self.drew |= {cell.name for cell, state in now if state != stood[cell]}
            self._put(outside, now)

    @staticmethod
    def _put(wanted: list[tuple[Cell, Any]], there: list[tuple[Cell, Any]]) -> None:
        stands = dict(there)
        for cell, state in wanted:
            if stands.get(cell) != state:
                cell.write(state, state)


def difference(one: Any, other: Any) -> str | None:
    """The first thing in which two items differ, as half a sentence, or None where each bit is the same.

    Args:
        one: an item.
        other: another one.
    """
    with unseen():
        pairs = zip_longest(leaves(one, objects=True), leaves(other, objects=True), fillvalue=("", None))
        for (place, left), (there, right) in pairs:
            if place != there or type(left) is not type(right):
                return f"{_told(place or there, left)} in one, {_told(there or place, right)} in the other"
            if isinstance(left, Tensor) and isinstance(right, Tensor):
                if _kind(left) != _kind(right):
                    return f"{_told(place, left)} in one, {_told(place, right)} in the other"
                if not _same(left, right):
                    return f"the numbers in {_told(place, left)}"
            elif isinstance(left, Said) and isinstance(right, Said) and left.text != right.text:
                return f"{_told(place, left)} in one, {_told(place, right)} in the other"
    return None


def _told(place: str, leaf: Any) -> str:
    where = f"item{place}"
    if leaf is None:
        return f"{where} is not there"
    if isinstance(leaf, Tensor):
        return f"{where} ({str(leaf.dtype)[6:]} {list(leaf.shape)}{', requires gradients' * leaf.requires_grad})"
    text = leaf.text if len(leaf.text) <= 60 else f"{leaf.text[:60]}..."
    return f"{where} = {text}"


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return type(tensor), tensor.dtype, tensor.shape, tensor.device, tensor.layout, tensor.requires_grad


def _same(one: Tensor, other: Tensor) -> bool:
    left, right = list(parts(one)), list(parts(other))
    return [name for name, _ in left] == [name for name, _ in right] and all(
        a.shape == b.shape and a.dtype == b.dtype and same_bits(a, b)
        for (_, a), (_, b) in zip(left, right, strict=True)
    )


Blob = list[blob.Memory]


def kept(item: Any, what: str) -> Blob:
    """An item as it is kept, after a look at whether it comes back.

    Args:
        item: it.
        what: which it is, for messages.

    Raises:
        CacheError: it cannot be kept, or comes back as something else.
    """
    made = blob.encode(item)
    found = difference(item, blob.decode(blob.reading(blob.joined(made))))
    if found is not None:
        raise CacheError(
            f"{what} cannot be kept, as pickle does not bring it back as it was ({found}): let the dataset return "
            "tensors, arrays, numbers, strings, and containers of them"
        )
    return made


def must_be_same(what: str, first: Any, again: Any, drew: set[str]) -> None:
    """Holds what was built twice against each other.

    Args:
        what: which it is, for messages.
        first: as it was built.
        again: as it was built from other random numbers.
        drew: the streams from which it drew.

    Raises:
        CacheError: they differ.
    """
    found = difference(first, again)
    if found is not None:
        raise CacheError(f"{what} is not the same when it is built twice: {found}. {_why(drew)}")


def same_again(what: str, first: Any, build: Callable[[], Any], seed: int, drew: set[str]) -> None:
    """Builds something once more, from other random numbers.

    Args:
        what: which it is, for messages.
        first: as it was built.
        build: builds it.
        seed: of the random numbers.
        drew: the streams from which it drew the first time.

    Raises:
        CacheError: it comes out as something else.
    """
    streams = Streams(seed)
    with streams.apart():
        again = build()
    must_be_same(what, first, again, drew)


def _why(drew: set[str]) -> str:
    if drew:
        return f"It draws from {' and '.join(sorted(drew))}. {RANDOM}"
    return (
        "It comes of something else than the random numbers that a process shares: a generator or an iterator of its "
        f"own that goes on, a clock, a count of what was read, what other processes write. {RANDOM}"
    )
