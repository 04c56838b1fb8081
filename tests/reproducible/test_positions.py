"""Iterators stand afterwards where they stood, with the same bits, and each run takes the same of them."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from torchturbo import check_reproducible, turbo
from torchturbo._replay.here import Here

Batches = list[list[float]]


class Augmented(Dataset[Tensor]):
    """Each item comes with noise from torch's stream and Python's."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index)]) + torch.rand(1) + random.random()


class Stream(IterableDataset[Tensor]):
    """Draws as it goes."""

    def __iter__(self) -> Iterator[Tensor]:
        for index in range(12):
            yield torch.tensor([float(index)]) + torch.rand(1)


LOADERS: dict[str, Callable[[], DataLoader[Tensor]]] = {
    "shuffled": lambda: DataLoader(Augmented(), batch_size=2, shuffle=True),
    "by a generator": lambda: DataLoader(
        Augmented(),
        batch_size=2,
        sampler=torch.utils.data.RandomSampler(
            Augmented(), replacement=True, num_samples=12, generator=torch.Generator().manual_seed(4)
        ),
    ),
    "unbatched": lambda: DataLoader(Augmented(), batch_size=None, shuffle=True),
    "iterable": lambda: DataLoader(Stream(), batch_size=2),
    "with workers": lambda: DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=2),
    "workers that stay": lambda: DataLoader(
        Augmented(), batch_size=2, shuffle=True, num_workers=1, persistent_workers=True
    ),
    "iterable with a worker": lambda: DataLoader(Stream(), batch_size=2, num_workers=1),
}


def _epoch(name: str, before: int, check: bool, seed: int | None = None) -> tuple[Batches, Any]:
    """The batches of the rest of an epoch, and of the next one, with checks in between or without them."""
    torch.manual_seed(1)
    random.seed(1)
    with turbo("exact", seed=seed) if seed is not None else nullcontext() as active:
        loader = LOADERS[name]()
        batches = iter(loader)
        for _ in range(before):
            next(batches)
        seen: list[Tensor] = []

        def step() -> Tensor:
            batch = next(batches)
            taken = batch.clone()
            batch.zero_()
            return taken + torch.rand(1)

        if check:
            here = Here(lambda: [step(), step()])
            for _ in range(2):
                records = [here.watched(nullcontext()) for _ in range(2)]
                one, other = ([event.digest for event in record.events] for record in records)
                assert one == other
                # A measurement that takes another number of batches, and one after it.
                here.seconds(nullcontext(), 2 if before < 3 else 1)
                here = Here(lambda: [step(), step()])
            found = check_reproducible(step, price_seconds=0)
            assert found, str(found)
            state = active.state_dict() if active is not None else None
        elif active is not None:
            state = active.state_dict()
        else:
            state = None
        seen += [step() for _ in range((12 if name == "unbatched" else 6) - before)]
        assert next(batches, None) is None
        seen += list(loader)
        assert not any("turbo" in type(each).__module__ for each in vars(batches).values())
        assert "_next_data" not in vars(batches)
        return [each.tolist() for each in seen], state


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("before", [0, 3])
def test_a_loader_goes_on_as_if_nobody_had_looked(name: str, before: int) -> None:
    assert _epoch(name, before, check=True)[0] == _epoch(name, before, check=False)[0]


def _told(state: Any) -> str:
    return re.sub(r"'drawn': (\d+|None)", "", str(state))


@pytest.mark.parametrize("name", ["shuffled", "with workers"])
def test_a_loader_in_a_block_with_a_seed_goes_on_too(name: str) -> None:
    plain, checked = (_epoch(name, 1, check=check, seed=3) for check in (False, True))
    assert checked[0] == plain[0]
    # How far ahead indices have been sent to workers, which nobody can take back, is told in the state.
    assert _told(checked[1]) == _told(plain[1])


def test_a_loader_that_comes_to_its_end_in_a_run_comes_to_it_again() -> None:
    batches = iter(DataLoader(torch.arange(4.0), batch_size=2))

    def step() -> float:
        return sum(batch.sum().item() for batch in batches)

    assert check_reproducible(step, 3, price_seconds=0)
    assert step() == 6.0
    assert step() == 0


def test_workers_that_wait_for_the_next_epoch_are_left_alone() -> None:
    def bits(check: bool) -> list[Any]:
        torch.manual_seed(2)
        loader = DataLoader(Augmented(), batch_size=6, num_workers=1, persistent_workers=True)
        seen = list(loader)
        iterator = loader._iterator
        if check:
            assert check_reproducible(lambda: list(loader), price_seconds=0)
            assert loader._iterator is iterator
        return [each.tolist() for each in (*seen, *loader)]

    assert bits(check=True) == bits(check=False)


ITERATORS: dict[str, Callable[[list[Any]], Iterator[Any]]] = {
    "list": iter,
    "tuple": lambda items: iter(tuple(items)),
    "range": lambda items: iter(range(len(items))),
    "dict": lambda items: iter(dict.fromkeys(map(str, items), 1)),
    "reversed": reversed,
    "enumerate": enumerate,
    "zip": lambda items: zip(items, iter(items), strict=False),
    "cycle": itertools.cycle,
    "islice": lambda items: itertools.islice(iter(items), 1, None),
    "chain": lambda items: itertools.chain(items, iter(items)),
    "count": lambda items: itertools.count(3),
    "loader": lambda items: enumerate(DataLoader(items, batch_size=1)),
}


@pytest.mark.parametrize("kind", ITERATORS)
@pytest.mark.parametrize("held", ["closure", "dictionary", "argument", "keyword"])
def test_iterators_of_python_stand_where_they_stood(kind: str, held: str) -> None:
    items = [torch.full((2,), float(n)) for n in range(5)]
    batches = ITERATORS[kind](items)
    fresh = ITERATORS[kind](items)
    next(batches), next(fresh)
    holder = {"batches": batches}
    if held == "closure":
        found = check_reproducible(lambda: [next(batches), next(batches)], 3, price_seconds=0)
    elif held == "dictionary":
        found = check_reproducible(lambda: [next(holder["batches"]), next(holder["batches"])], 3, price_seconds=0)
    elif held == "argument":
        found = check_reproducible(lambda its: [next(its), next(its)], 3, args=(batches,), price_seconds=0)
    else:
        found = check_reproducible(lambda its: [next(its), next(its)], 3, kwargs={"its": batches}, price_seconds=0)
    assert found, str(found)
    assert holder["batches"] is batches
    rest, expected = (list(itertools.islice(each, 6)) for each in (batches, fresh))
    assert str(rest) == str(expected)


def test_what_a_step_does_to_the_items_of_a_list_is_undone() -> None:
    items = [torch.zeros(2) for _ in range(3)]
    batches = iter(items)
    assert check_reproducible(lambda: next(batches).add_(1), price_seconds=0)
    assert next(batches) is items[0]
    assert items[0].tolist() == [0.0, 0.0]
