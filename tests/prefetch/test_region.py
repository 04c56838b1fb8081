"""Data loaders that are iterated in a block with `prefetch=True`: one batch ahead, and nothing else is other."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.laws.around import NOTHING
from tests.prefetch.lanes import Late
from torchturbo import check_reproducible, prefetch, turbo
from torchturbo.regions import _iterated
from torchturbo.regions._ahead import Ahead
from torchturbo.testing import pretend_hardware


class Augmented(Dataset[Tensor]):
    """Samples that draw from the streams of whoever fetches them."""

    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> Tensor:
        return index + torch.rand(2) / 2 + random.random() / 2


class Within(IterableDataset[Tensor]):
    """A dataset that goes through a loader itself."""

    def __iter__(self) -> Iterator[Tensor]:
        for batch in DataLoader(Augmented(), 2):
            assert type(batch) is Tensor
            yield batch[0]


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    """What stands in for the GPU of a machine that is made up."""
    late = Late()
    monkeypatch.setattr(_iterated, "lane", lambda: late)
    with pretend_hardware("H100"):
        yield late


def loader(**options: Any) -> Any:
    return DataLoader(Augmented(), **{"batch_size": 2, "shuffle": True, **options})


def lists(batches: Any) -> list[Any]:
    return [batch.tolist() for batch in batches]


def test_without_a_gpu_it_has_no_effect() -> None:
    with pretend_hardware("cpu"), turbo(NOTHING, prefetch=True) as active:
        (refused,) = active.plan.refused
        assert refused.refused == "batches are used by the CPU, where they are already"
        assert not isinstance(iter(loader()), Ahead)
    with pretend_hardware("apple"), turbo(NOTHING, prefetch=True) as active:
        assert "Apple's GPU" in str(active.plan.refused[0].refused)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU")
def test_a_gpu_that_torch_does_not_find_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pretend_hardware("H100"), turbo(NOTHING, prefetch=True):
        assert _iterated.told() == "no data loader has been iterated in this thread's block yet"
        assert not isinstance(iter(loader()), Ahead)
        assert _iterated.told() == "1 iteration over data loaders: left alone, as torch finds no GPU"


def test_only_loaders_of_the_blocks_thread_are_reached(lane: Late) -> None:
    code = DataLoader.__iter__.__code__
    outside = iter(loader())
    with turbo(NOTHING, prefetch=True) as active:
        assert type(iter(loader())) is Ahead
        assert len(list(loader())) == 7
        assert len(list(outside)) == 7
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(type(iter(loader()))))
        thread.start()
        thread.join()
        assert found == [type(outside)]
        with turbo(NOTHING, prefetch=False):
            assert type(iter(loader())) is type(outside)
            assert _iterated.told() is None
        assert type(iter(loader())) is Ahead
        said = "3 iterations over data loaders: prefetched to meta"
        assert _iterated.told() == said
        assert said in " ".join(str(active.report()).split())
    assert type(iter(loader())) is type(outside)
    assert DataLoader.__iter__.__code__ is code
    assert lane.copies == 7


def test_what_is_iterated_within_a_fetch_is_left_alone(lane: Late) -> None:
    with turbo(NOTHING, prefetch=True):
        assert len(list(DataLoader(Within(), 2))) == 4
        assert lane.copies == 4
        ours: Any = prefetch(loader(), "meta")
        assert {batch.device.type for batch in ours} == {"meta"}
        assert lane.copies == 4
        assert type(iter(ours).source) is not Ahead


@pytest.mark.parametrize("workers", [0, 2])
def test_with_a_seed_batches_are_what_they_are_without(lane: Late, workers: int) -> None:
    def run(ahead: bool) -> list[Any]:
        with turbo(NOTHING, seed=3, prefetch=ahead):
            batches = loader(num_workers=workers)
            # The loop draws too, between the batches.
            return [(batch.tolist(), random.random(), float(torch.rand(()))) for _ in range(2) for batch in batches]

    assert run(True) == run(False)
    assert lane.copies == 14


@pytest.mark.parametrize(("workers", "own"), [(0, False), (0, True), (2, True)])
def test_a_batch_that_was_fetched_ahead_has_not_been_had(lane: Late, workers: int, own: bool) -> None:
    """A run that goes on from a state gets it, wherever the first one was stopped, with `prefetch` or without."""

    def run(stop: int | None, state: Any, ahead: bool, done: int = 0) -> tuple[list[Any], Any]:
        got: list[Any] = []
        with turbo(NOTHING, seed=3, prefetch=ahead) as active:
            batches = loader(num_workers=workers, generator=torch.Generator().manual_seed(8) if own else None)
            if state is not None:
                active.load_state_dict(state)
            for _ in range(done // 7, 2):
                for batch in batches:
                    got.append((batch.tolist(), random.random()))
                    if len(got) == stop:
                        return got, active.state_dict()
        return got, None

    whole, _ = run(None, None, ahead=True)
    for stop in (10,) if workers else (1, 6, 7, 8, 13):
        for first, second in ((True, True), (True, False), (False, True)):
            begun, state = run(stop, None, first)
            rest, _ = run(None, state, second, done=stop)
            assert begun + rest == whole


def test_what_a_generator_takes_ahead_has_not_been_had_either(lane: Late) -> None:
    with turbo(NOTHING, seed=3, prefetch=True) as active:
        batches: Any = prefetch((batch for batch in loader()), "meta")
        for _ in range(3):
            next(batches)
        (position,) = active.state_dict()["loaders"]["loaders"].values()
        assert position["batches"] == 3
        assert len(list(batches)) == 4


def test_what_is_measured_in_it_goes_on_as_if_nobody_had(lane: Late) -> None:
    def step() -> Tensor:
        batch: Tensor = next(batches)
        got.append(batch.tolist())
        return batch.sum()

    got: list[Any] = []
    with turbo(NOTHING, seed=3, prefetch=True):
        plain = lists(loader())
    with turbo(NOTHING, seed=3, prefetch=True):
        batches = iter(loader())
        next(batches)
        assert check_reproducible(step).identical
        assert lists(batches) == plain[1:]


def test_a_loader_that_is_shared_by_processes_is_read_by_them_alone(lane: Late) -> None:
    with turbo(NOTHING, prefetch=True):
        inner = DataLoader(Within(), 2, num_workers=1)
        assert len(list(inner)) == 4
    assert lane.copies == 4
