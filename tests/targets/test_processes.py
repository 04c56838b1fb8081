"""Targets reach other processes: those that start afresh, and the workers of a DataLoader."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.targets import zoo
from torchturbo import accelerate
from torchturbo.testing import pretend_hardware

UNPICKLABLE = {"lambda", "torch builtin"}
KNOWN = {"partialmethod"}  # see test_table


def pretend_for_good() -> None:
    pretend_hardware("cpu-bf16").__enter__()


@pytest.fixture(scope="module")
def afresh() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=pretend_for_good) as pool:
        pool.submit(type, torch.ones(1)).result()  # a tensor starts a thread that shares it
        yield pool


@pytest.fixture(autouse=True)
def _started(afresh: ProcessPoolExecutor) -> None:
    """The pool has its threads before the test looks which ones there are."""


@pytest.mark.parametrize("name", [name for name in zoo.TARGETS if name not in UNPICKLABLE | KNOWN])
def test_in_a_process_that_starts_afresh(afresh: ProcessPoolExecutor, name: str) -> None:
    target = zoo.TARGETS[name]
    order = zoo.Order(depth=1)
    given, problems = afresh.submit(zoo.in_a_process, name, target.thing(), order).result()
    assert problems == []
    assert given == target.run(target.thing(), order)
    zoo.PROBLEMS.clear()


def test_lambdas_do_not_pickle_as_they_do_not_undecorated() -> None:
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(zoo.anonymous)


class Numbers(Dataset[tuple[int, bool]]):
    def __len__(self) -> int:
        return 4

    @accelerate(profile="debug")
    def __getitem__(self, at: int) -> tuple[int, bool]:
        return at, torch.is_anomaly_enabled()


class Stream(IterableDataset[tuple[int, bool]]):
    @accelerate(profile="debug")
    def __iter__(self) -> Iterator[tuple[int, bool]]:
        for at in range(4):
            yield at, torch.is_anomaly_enabled()


@accelerate(profile="debug", num_threads=2)
def collate(parts: list[tuple[int, bool]]) -> tuple[Tensor, bool, bool, int]:
    numbers = torch.tensor([number for number, _ in parts])
    return numbers, all(seen for _, seen in parts), torch.is_anomaly_enabled(), torch.get_num_threads()


@accelerate(profile="debug")
def begin(worker: int) -> None:
    assert torch.is_anomaly_enabled()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_the_workers_of_a_data_loader(start: str) -> None:
    loader = DataLoader(
        Numbers(),
        batch_size=2,
        num_workers=2,
        collate_fn=collate,
        worker_init_fn=begin,
        multiprocessing_context=start,
    )
    batches = list(loader)
    assert [batch[0].tolist() for batch in batches] == [[0, 1], [2, 3]]
    assert [batch[1:] for batch in batches] == [(True, True, 2)] * 2
    assert not torch.is_anomaly_enabled()


def test_a_data_set_that_is_a_generator() -> None:
    (batch,) = DataLoader(Stream(), batch_size=4, num_workers=0, collate_fn=collate)
    assert batch[0].tolist() == [0, 1, 2, 3]
    assert batch[1:] == (True, True, 2)
    looped = []
    for _ in DataLoader(Stream(), batch_size=1, num_workers=0, collate_fn=list):
        looped.append(torch.is_anomaly_enabled())
    assert looped == [False] * 4, "the loop does not run under the data set's profile"
