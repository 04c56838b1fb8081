"""Data loaders in a block with a seed: the same batches, whoever fetches them."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, WeightedRandomSampler, dataloader

from tests.laws.look import differences, look
from tests.laws.mutants_of_streams import Plain
from tests.laws.streams import NOTHING, draw
from tests.seeding.datasets import (
    AtOnce,
    Augmented,
    Nested,
    Stream,
    as_they_are,
    epochs,
    loader,
    opens_a_file,
    seeds_everything,
    seeds_numpy,
)
from torchturbo import accelerate, turbo
from torchturbo.regions import _loading


@pytest.fixture(autouse=True)
def _streams_stay() -> Iterator[None]:
    codes = [function.__code__ for function in WATCHED]
    before = look()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
    assert differences(before, look()) == ""
    assert [function.__code__ for function in WATCHED] == codes


@contextmanager
def put_back() -> Iterator[None]:
    """Around what draws outside of a block."""
    found = Plain(0).read()
    yield
    Plain(0).write(found)


WATCHED: tuple[Any, ...] = (
    dataloader.DataLoader._get_iterator,
    dataloader._BaseDataLoaderIter._reset,
    dataloader._BaseDataLoaderIter._next_index,
    dataloader._SingleProcessDataLoaderIter._next_data,
)


@pytest.fixture(scope="module")
def reference() -> list[Any]:
    return epochs(loader(0))


@pytest.mark.parametrize("workers", [0, 1, 2, 8])
def test_batches_and_the_stream_around_are_the_same_for_every_number_of_workers(
    workers: int, reference: list[Any]
) -> None:
    assert epochs(loader(workers)) == reference


@pytest.mark.parametrize(
    "options",
    [
        {"persistent_workers": True},
        {"prefetch_factor": 7},
        {"persistent_workers": True, "worker_init_fn": opens_a_file},
    ],
)
def test_so_they_are_whatever_the_workers_are_like(options: dict[str, Any], reference: list[Any]) -> None:
    assert epochs(loader(2, **options)) == reference


def test_spawned_workers_give_the_same(reference: list[Any]) -> None:
    assert epochs(loader(2, multiprocessing_context="spawn", persistent_workers=True)) == reference


def test_epochs_differ_and_seeds_differ(reference: list[Any]) -> None:
    first, _, second, _ = reference
    assert sorted(index for batch in first for index, _ in batch) == list(range(11))
    assert [index for batch in first for index, _ in batch] != [index for batch in second for index, _ in batch]
    drawn = [number for batch in (*first, *second) for _, numbers in batch for number in numbers]
    assert len(set(drawn)) == len(drawn)
    assert epochs(loader(0), seed=2) != reference
    assert epochs(loader(0)) == reference


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_an_epoch_is_the_same_whether_earlier_ones_were_broken_off(
    workers: int, persistent: bool, reference: list[Any]
) -> None:
    with turbo("exact", seed=1):
        batches = loader(workers, persistent_workers=persistent)
        next(iter(batches))
        assert list(batches) == reference[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_two_loaders_in_turn_do_not_disturb_each_other(workers: int, reference: list[Any]) -> None:
    with turbo("exact", seed=1):
        other, batches = loader(workers, Augmented(7)), loader(workers)
        pairs = list(itertools.zip_longest(other, batches))
    assert [batch for _, batch in pairs] == reference[0]


def test_two_loaders_that_are_alike_have_a_stream_each() -> None:
    with turbo("exact", seed=1):
        one, other = list(loader(0)), list(loader(0))
    assert one != other
    assert one == epochs(loader(0))[0]


@pytest.mark.parametrize("dataset", [AtOnce(), Nested()])
def test_datasets_of_other_kinds(dataset: Augmented) -> None:
    found = epochs(loader(0, dataset))
    assert epochs(loader(2, dataset)) == found
    assert found[0] != found[2]


# ---------------------------------------------------------------------------------------------------------- samplers


class Eager(Sampler[int]):
    """Draws when it is asked for an iterator."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(11).tolist())

    def __len__(self) -> int:
        return 11


class AsItGoes(Eager):
    """Draws at every index, from streams of three kinds."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(11):
            draw()
            yield random.randrange(11)


SAMPLERS: dict[str, Callable[[], dict[str, Any]]] = {
    "in order": dict,
    "eager": lambda: {"sampler": Eager()},
    "as it goes": lambda: {"sampler": AsItGoes()},
    "with replacement": lambda: {"sampler": RandomSampler(range(11), replacement=True, num_samples=40)},
    "weighted": lambda: {"sampler": WeightedRandomSampler([1.0] * 11, 30)},
    "batches": lambda: {"batch_sampler": BatchSampler(AsItGoes(), 3, drop_last=True), "batch_size": 1},
    "one by one": lambda: {"sampler": Eager(), "batch_size": None},
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_draw_from_streams_of_their_own(sampler: str) -> None:
    found = [
        epochs(loader(workers, shuffle=False, persistent_workers=persistent, **SAMPLERS[sampler]()))
        for workers, persistent in ((0, False), (1, False), (1, True))
    ]
    assert found[1:] == found[:1] * 2
    assert found[0][0] != found[0][2]


# ------------------------------------------------------------------------------------------------- what users bring


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_of_the_users_decides(workers: int) -> None:
    def found(seed: int, generators: int) -> list[Any]:
        return epochs(loader(workers, generator=torch.Generator().manual_seed(generators)), seed=seed)[::2]

    def order(epochs: list[Any]) -> list[list[int]]:
        return [[index for batch in epoch for index, _ in batch] for epoch in epochs]

    mine = found(1, 5)
    assert found(2, 5) == mine
    assert found(1, 6) != mine
    with put_back():
        plain = [list(batches) for batches in [loader(0, generator=torch.Generator().manual_seed(5))] * 2]
    assert order(mine) == order(plain)
    assert mine == epochs(loader(0, generator=torch.Generator().manual_seed(5)))[::2]


def test_what_a_worker_init_fn_seeds_is_left_to_it(reference: list[Any]) -> None:
    def parts(epoch: Any, place: slice) -> list[Any]:
        return [numbers[place] for batch in epoch for _, numbers in batch]

    all_three = epochs(loader(1, worker_init_fn=seeds_everything), count=1)[0]
    with turbo(NOTHING, seed=0):
        seeds_everything(0)
        assert parts(all_three, slice(None)) == [draw() for _ in range(11)]
    recipe = epochs(loader(1, worker_init_fn=seeds_numpy), count=1)[0]
    assert parts(recipe, slice(3, None)) == parts(reference[0], slice(3, None))  # torch's stream
    assert parts(recipe, slice(0, 1)) != parts(reference[0], slice(0, 1))
    assert epochs(loader(1, worker_init_fn=seeds_numpy), count=1)[0] == recipe


# ---------------------------------------------------------------------------------------------------- iterable datasets


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_iterable_datasets_give_the_same_twice(workers: int, persistent: bool) -> None:
    def found() -> list[Any]:
        return epochs(loader(workers, Stream(), shuffle=False, persistent_workers=persistent))

    first = found()
    assert found() == first
    assert first[0] != first[2]
    assert first[1::2] == epochs(loader(0))[1::2]


def test_an_iterable_dataset_does_not_notice_that_an_earlier_epoch_was_broken_off() -> None:
    def second(*, breaks: bool) -> list[Any]:
        with turbo("exact", seed=1):
            batches = loader(2, Stream(), shuffle=False, persistent_workers=True)
            for _ in batches:
                if breaks:
                    break
            return list(batches)

    assert second(breaks=True) == second(breaks=False)


# ------------------------------------------------------------------------------------------------------ beginning, end


def test_torch_is_as_it_was_between_and_after_blocks() -> None:
    codes = [function.__code__ for function in WATCHED]

    @accelerate(profile=NOTHING, seed=1)
    def generator() -> Iterator[Any]:
        for batch in loader(0):
            assert [function.__code__ for function in WATCHED] != codes
            yield batch

    found = []
    for batch in generator():
        assert [function.__code__ for function in WATCHED] == codes
        found.append(batch)
    assert found == epochs(loader(0), count=1)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_that_is_used_up_outside_goes_on_as_torch_has_it(workers: int) -> None:
    with turbo("exact", seed=1):
        batches = iter(loader(workers))
        first = next(batches)
    with put_back():
        rest = list(batches)
        after = draw()
    assert sorted(index for batch in (first, *rest) for index, _ in batch) == list(range(11))
    with put_back():
        drawn = [draw() for _ in range(11)]
    if not workers:  # which has drawn in the streams that it found
        assert [numbers for batch in rest for _, numbers in batch] == drawn[:9]
        assert after == drawn[9]


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 1, "persistent_workers": True}])
def test_an_iterator_that_was_started_outside_goes_on_as_torch_has_it(options: dict[str, Any]) -> None:
    batches: DataLoader[Any] = DataLoader(Augmented(), shuffle=True, collate_fn=as_they_are, **options)
    with turbo("exact", seed=1):
        list(batches)
    with put_back():
        going = iter(batches)
        first = next(going)
        with turbo("exact", seed=1):
            assert _loading.epoch_of(going) is None
            rest = list(going)
    assert sorted(index for batch in (first, *rest) for index, _ in batch) == list(range(11))


def test_a_generator_of_the_users_and_a_sampler_that_draws_from_the_streams_around() -> None:
    found = [
        epochs(loader(workers, shuffle=False, sampler=AsItGoes(), generator=torch.Generator().manual_seed(5)))
        for workers in (0, 1)
    ]
    assert found[0] == found[1]


def test_a_nested_block_has_epochs_of_its_own(reference: list[Any]) -> None:
    with turbo("exact", seed=1):
        batches = loader(0)
        assert list(batches) == reference[0]
        with turbo("exact", seed=1):
            assert list(batches) == reference[0]
        with turbo("exact", seed=2):
            assert list(batches) == epochs(loader(0), seed=2)[0]
        assert list(batches) == reference[2]


def test_an_outer_loader_goes_on_within_an_inner_block(reference: list[Any]) -> None:
    with turbo("exact", seed=1):
        batches = iter(loader(0))
        first = next(batches)
        with turbo("exact", seed=2):
            assert [first, *batches] == reference[0]


def test_without_a_seed_loaders_draw_as_ever() -> None:
    def order(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        return list(DataLoader(range(11), shuffle=True))  # type: ignore[arg-type]

    with put_back():
        plain = order(3)
        with turbo("reproducible"):
            assert order(3) == plain


def test_a_dataset_that_raises_leaves_no_trace() -> None:
    class Broken(Augmented):
        def __getitem__(self, index: int) -> Any:
            draw()
            raise ZeroDivisionError

    with turbo("exact", seed=1):
        before = torch.get_rng_state()
        with pytest.raises(ZeroDivisionError):
            list(loader(0, Broken()))
        assert torch.equal(torch.get_rng_state(), before)
        assert not _loading._thread.fetching
