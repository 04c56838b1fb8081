"""All that is watched: how it is, what has changed since, and everything put back."""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch

from torchturbo.errors import OptionNameError, near
from torchturbo.testing._of_options import of_options
from torchturbo.testing._of_python import of_python
from torchturbo.testing._of_surroundings import CONFIGS, is_read_by_torch, of_surroundings
from torchturbo.testing._of_torch import inference, of_torch
from torchturbo.testing._thing import Change, Raw, Thing, equal

State = list[Raw]


class Watch:
    """The things that are watched, in the order in which they are put back.

    Args:
        things: what to watch.
    """

    def __init__(self, things: Iterable[Thing]) -> None:
        self.things = tuple(things)
        self._reads = tuple(thing.read for thing in self.things)

    def look(self) -> State:
        """How everything is now, as this thread sees it."""
        return [read() for read in self._reads]

    def changed(self, before: State) -> bool:
        """Whether anything is not as it was."""
        now = self.look()
        return not equal(now, before) and bool(self.moved(before, now))

    def put_back(self, before: State) -> list[Change]:
        """Says what is not as it was, and puts it back as far as that can be done.

        Each is looked at again when its turn comes: what only followed another thing is back with that.

        Args:
            before: what `look` has said.
        """
        return self._changes(before, put_back=True) if self.changed(before) else []

    def tell(self, before: State) -> list[Change]:
        """Says what is not as it was, and leaves it so.

        Args:
            before: what `look` has said.
        """
        return self._changes(before, put_back=False) if self.changed(before) else []

    def _changes(self, before: State, *, put_back: bool) -> list[Change]:
        found: list[Change] = []
        for thing, was in zip(self.things, before, strict=True):
            found += thing.changes(was, put_back=put_back)
        return found

    def moved(self, before: State, now: State) -> list[int]:
        """Which things are not as they were, by their places."""
        three = zip(self.things, before, now, strict=True)
        return [place for place, (thing, was, is_now) in enumerate(three) if not thing.same(was, is_now)]

    @property
    def names(self) -> list[str]:
        """What can be allowed."""
        return sorted({name for thing in self.things for name in thing.names})

    def check(self, names: Iterable[str]) -> None:
        """Sees to it that each is the name of something that is watched.

        Raises:
            OptionNameError: one is not; names the near ones.
        """
        known = set(self.names)
        for name in names:
            variable = name.removeprefix("os.environ[").strip("'\"]")
            if name not in known and not is_read_by_torch(variable) and name.rpartition(".")[0] not in CONFIGS:
                short = [word for word in self.names if not word.startswith("torch.")]
                raise OptionNameError(f"nothing called {name!r} is watched for leaks: {near(name, short)}")


def _everything() -> Iterator[Thing]:
    yield from inference()
    yield from of_options()
    yield from of_python()
    yield from of_surroundings()
    yield from of_torch()


def _random_numbers() -> Iterator[Thing]:
    yield Thing("random", "torch.manual_seed", _generator, _set_generator, _shown_generator)
    yield Thing("python_random", "random.seed", random.getstate, _set_python, _shown_generator)
    yield Thing("numpy_random", "numpy.random.seed", _numpy, _set_numpy, _shown_generator, _same_numpy)


def _generator() -> bytes:
    return bytes(torch.get_rng_state().tolist())


def _set_generator(was: bytes, now: bytes) -> None:
    torch.set_rng_state(torch.tensor(list(was), dtype=torch.uint8, device="cpu"))


def _set_python(was: Raw, now: Raw) -> None:
    random.setstate(was)


def _numpy() -> Raw:
    loaded: Any = sys.modules.get("numpy.random")
    if loaded is None:
        return None
    kind, keys, *rest = loaded.get_state()
    return kind, tuple(keys.tolist()), *rest


def _same_numpy(was: Raw, now: Raw) -> bool:
    # It is seeded by chance when it is imported, and nobody has drawn from it before.
    return was is None or equal(was, now)


def _set_numpy(was: Raw, now: Raw) -> None:
    generators: Any = sys.modules["numpy.random"]
    generators.set_state(was)


def _shown_generator(raw: Raw) -> str:
    return f"at state {zlib.crc32(repr(raw).encode()):08x}"


@cache
def watch(*, random: bool = False) -> Watch:
    """The watch over everything.

    Args:
        random: also where the streams of random numbers on the CPU stand.
    """
    return Watch((*_everything(), *(_random_numbers() if random else ())))
