"""What holds of data loaders in a block with a seed, in one function; and what is broken on purpose must fail it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.laws.streams import draw
from tests.laws.violation import Violation, holds
from tests.seeding.datasets import Augmented, epochs, loader
from torchturbo import turbo
from torchturbo.regions import _arriving, _loading
from torchturbo.regions._epochs import Epoch
from torchturbo.regions._seeding import Seeding


def loaders_hold() -> None:
    """The same batches by this process and by a worker, each epoch other ones, and nobody disturbs anybody.

    Raises:
        Violation: it is not so.
    """
    found = epochs(loader(0))
    first, _, second, _ = found
    holds(epochs(loader(0)) == found, "the same block gives other batches")
    holds(epochs(loader(1)) == found, "a worker gives other batches, or the stream around is another one")
    holds(epochs(loader(0), seed=2)[0] != first, "another seed gives the same batches")
    holds(_order(first) != _order(second), "two epochs have the same order")
    drawn = [number for batch in (*first, *second) for _, numbers in batch for number in numbers]
    holds(len(set(drawn)) == len(drawn), "two batches have the same augmentations")
    for workers in (0, 1):
        with turbo("exact", seed=1):
            batches = loader(workers)
            next(iter(batches))
            holds(list(batches) == second, "an iteration that was broken off changes the next one")
    with turbo("exact", seed=1):
        pairs = list(itertools.zip_longest(loader(0, Augmented(7)), loader(0)))
        holds([batch for _, batch in pairs] == first, "another loader changes the batches")
        one, other = list(loader(0, Augmented(5))), list(loader(0, Augmented(5)))
        holds(one != other, "two loaders that are alike give the same")
    with turbo("exact", seed=1):
        around = draw()
    with turbo("exact", seed=1):
        list(loader(0))
        holds(draw() == around, "loading draws from the stream around")


def _order(batches: Any) -> list[int]:
    return [index for batch in batches for index, _ in batch]


def test_torchturbo_holds_it() -> None:
    loaders_hold()


_counted = itertools.count()


def _first_again(self: Seeding, loader: Any) -> Epoch:
    return Epoch((self.seed, "one", 0), loader)


def _other_each_time(self: Seeding, loader: Any) -> Epoch:
    return Epoch((next(_counted),), loader)


def _counts_all_together(self: Seeding, loader: Any) -> Epoch:
    self._iterations["all"] += 1
    return Epoch((self.seed, self._iterations["all"]), loader)


MUTANTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "batches have one stream": (Epoch, "seed_of", lambda self, batch: 5),
    "batches start from their number alone": (Epoch, "seed_of", lambda self, batch: batch),
    "the first epoch again and again": (Seeding, "epoch", _first_again),
    "the seed is forgotten": (Seeding, "epoch", _other_each_time),
    "loaders share their epochs": (Seeding, "epoch", _counts_all_together),
    "workers are not seeded": (_arriving, "seeds", lambda seed: ()),
    "the sampler draws from the stream around": (_loading.layers, "going_on", lambda writes, call: (call(), writes)),
    "batches are fetched in the stream around": (_loading.layers, "within", lambda writes, call: call()),
    "an iteration is left to torch": (_loading, "_next_epoch", lambda loader: None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, broken = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Violation):
        loaders_hold()
