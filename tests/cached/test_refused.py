"""What is random, changes or is no data is refused, with what differs and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler

from tests.cached import datasets
from tests.cached.datasets import Items, Lines, Ones
from torchturbo import cache_of, cached
from torchturbo.errors import CacheError, CacheWarning


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("by_random", "It draws from Python's random."),
        ("by_numpy", "It draws from NumPy's random."),
        ("by_torch", "It draws from torch's generator on the CPU."),
        ("by_clock", "something else than the random numbers that a process shares"),
        ("by_system", "something else than"),
        ("by_own_generator", "a generator or an iterator of its own that goes on"),
    ],
)
def test_items_of_chance(function: str, why: str) -> None:
    stood = torch.get_rng_state()
    for make in (cached, lambda data: cached(DataLoader(data, batch_size=2))):
        with pytest.raises(
            CacheError, match=r"of .*Ones is not the same when it is built twice: the numbers in item"
        ) as info:
            make(Ones(getattr(datasets, function)))
        assert why in str(info.value)
        assert "Cache what comes before the random part" in str(info.value)
    assert torch.equal(torch.get_rng_state(), stood)


def test_an_item_of_chance_that_the_samples_missed() -> None:
    data = cached(Ones(datasets.late))
    with pytest.raises(CacheError, match="item 1 of Ones is not the same when it is built twice"):
        data[1]
    assert cache_of(data).stats().items == 3


def test_passes_of_chance() -> None:
    with pytest.raises(CacheError, match="item 0 of Lines is not the same"):
        cached(Lines(chance=True))

    class Once(torch.utils.data.IterableDataset[Any]):
        def __init__(self, given: int) -> None:
            self.them = iter(range(given))

        def __iter__(self) -> Any:
            return self.them

    with pytest.raises(CacheError, match=r"gives 3 items when it is first gone through, and 0 the second time"):
        cached(Once(3))
    with pytest.raises(CacheError, match=r"item = 0 in one, item = 3 in the other.*an iterator of its own"):
        cached(Once(5))

    class Growing(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from [1, 2, 3]
            passes.append(4)
            yield from passes

    passes: list[int] = []
    data = cached(Growing())
    taken = iter(data)
    [next(taken) for _ in range(4)]
    passes[0] = 5
    with pytest.raises(CacheError, match="item 3 of Growing is not what it was when it was kept"):
        list(data)


def test_loaders_that_are_shuffled() -> None:
    instead = r"Cache what it reads, and shuffle that: DataLoader\(cached\(dataset\), shuffle=True"
    generator = torch.Generator()
    stood = generator.get_state()
    for loader in (
        DataLoader(Items([1, 2, 3, 4]), shuffle=True, generator=generator),
        DataLoader(Items([1, 2, 3, 4]), batch_size=None, sampler=RandomSampler(range(4))),
    ):
        with pytest.raises(
            CacheError, match=rf"other batches in each epoch \(its sampler: RandomSampler\)\. {instead}"
        ):
            cached(loader)
    assert torch.equal(generator.get_state(), stood)

    class Slices(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: Any) -> Any:
            return index

    with pytest.raises(CacheError, match="which has no name as numbers and strings have"):
        cached(DataLoader(Slices(), batch_size=None, sampler=[slice(0, 2)]))


def test_loaders_whose_order_changes_later() -> None:
    sampler: Any = DistributedSampler(Items([1, 2, 3, 4]), num_replicas=2, rank=0, shuffle=True)
    loader = cached(DataLoader(Items([1, 2, 3, 4]), sampler=sampler))
    assert len(list(loader)) == 2
    for epoch in range(1, 9):
        sampler.set_epoch(epoch)
    with pytest.raises(CacheError, match="the loader has other batches than when it was cached"):
        [list(loader) for epoch in range(1, 9) if sampler.set_epoch(epoch) is None]


def test_what_cannot_be_kept() -> None:
    with pytest.raises(CacheError, match=r"as it cannot be pickled \(.*let the dataset return tensors, arrays"):
        cached(Items([lambda: 1]))
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(CacheError, match=r"return `tensor.detach\(\)`"):
        cached(Items([weight * 2]))

    chain: list[Any] = []
    for _ in range(5000):
        chain = [chain]
    with pytest.raises(CacheError, match="holds things within things, hundreds deep"):
        cached(Items(chain))
    with pytest.raises(CacheError, match="pickle does not bring it back as it was"):
        cached(Items([{"a": Other()}]))


class Other:
    """What pickle brings back is another thing."""

    def __reduce__(self) -> Any:
        return int, (3,)


def test_an_input_that_was_changed_in_place_is_seen() -> None:
    weights = torch.ones(3)
    data = cached(Items([weights]))
    assert data[0].sum() == 3
    weights.add_(1)
    with pytest.warns(CacheWarning, match=r"Items has changed since it was cached \(items\)"):
        assert data[0].sum() == 6
