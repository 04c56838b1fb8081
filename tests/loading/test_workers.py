"""How many workers a loader gets: none where they would get the data wrong, and "auto" a cautious number."""

from __future__ import annotations

import multiprocessing
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, SequentialSampler, Subset, TensorDataset

from tests.loading.datasets import FIT, UNFIT, Counting, Holding, Making, Numbers, Remembering, asking, on_device
from torchturbo._report import gather
from torchturbo.hardware import _room
from torchturbo.regions import _workers
from torchturbo.testing import pretend_hardware

GIB = 2**30


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with 16 cores, a GPU and much memory."""
    monkeypatch.setattr(_room, "cores", lambda known: known)
    monkeypatch.setattr(_room, "memory", lambda: 64 * GIB)
    monkeypatch.setattr(_room, "shared_memory", lambda: 32 * GIB)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def loaded(dataset: Any, wanted: object, machine: str = "H100", **call: Any) -> tuple[int, str]:
    """The number of workers of a loader that is made in a block, and what the block says of it."""
    with pretend_hardware(machine), asking(num_workers=wanted) as active:
        loader = DataLoader(dataset, **call)
        return loader.num_workers, str(gather(active)["num_workers"].note)


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("wanted", [3, "auto"])
def test_data_that_workers_would_get_wrong_are_read_by_this_process(name: str, wanted: object) -> None:
    dataset, why = UNFIT[name]
    number, told = loaded(dataset, wanted)
    assert number == 0
    assert told.startswith(f"1 data loader got no workers: {why}")


@pytest.mark.parametrize("name", FIT)
def test_others_get_as_many_as_are_asked_for(name: str) -> None:
    assert loaded(FIT[name], 3) == (3, "1 data loader got num_workers=3")


def test_an_open_file_would_be_moved_by_all(tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb") as file:
        number, told = loaded(Holding({"file": file}), 3)
        assert (number, told.partition(": ")[2]) == (
            0,
            "the dataset.held['file'] is an open file, in which all workers would move one position",
        )
        dataset = Holding(file)
    assert loaded(dataset, 3)[0] == 3, "it is closed"


def test_what_collates_is_looked_at_too() -> None:
    number, told = loaded(Numbers(), 3, collate_fn=on_device)
    assert number == 0
    assert "what collate_fn names is 'cuda:0', a device" in told
    device = torch.device("cuda")
    assert loaded(Numbers(), 3, collate_fn=lambda batch: batch[0].to(device))[0] == 0


class Collating:
    """Collates by a method."""

    def __init__(self, device: str) -> None:
        self.device = device

    def collate(self, batch: Any) -> Any:
        return batch


@pytest.mark.parametrize(
    ("collate", "why"),
    [
        (Collating("cuda").collate, "collate_fn.__self__.device is 'cuda', a device"),
        (partial(Collating("cpu").collate, device=torch.device("cuda")), "collate_fn's argument is the device cuda"),
        (partial(on_device), "what collate_fn names is 'cuda:0', a device"),
    ],
)
def test_so_it_is_as_a_method_and_with_arguments(collate: Any, why: str) -> None:
    number, told = loaded(Numbers(), 3, collate_fn=collate)
    assert number == 0
    assert why in told
    assert loaded(Numbers(), 3, collate_fn=partial(Collating("cpu").collate))[0] == 3


COUNTED = 0


class Global(Numbers):
    """Counts in its module."""

    def __getitem__(self, index: int) -> Any:
        global COUNTED
        COUNTED += 1
        return index


class Unfinished(torch.nn.Module):
    """Has never been initialized."""

    def __init__(self) -> None:
        pass


def test_what_cannot_be_looked_at_is_left_alone() -> None:
    dataset = Holding(Unfinished())
    number, told = loaded(dataset, 3)
    assert number == 0
    assert told.startswith("1 data loader got no workers: looking at what they load raised AttributeError: ")
    with pretend_hardware("H100"), asking(pin_memory=True) as active:
        assert DataLoader(dataset).pin_memory is False
        assert "went without pin_memory: looking at what they load raised" in str(gather(active)["pin_memory"].note)


def test_an_empty_block_says_that_nothing_was_made() -> None:
    with asking(num_workers=3) as active:
        assert gather(active)["num_workers"].note == "no data loader has been made in this thread's block yet"


def test_a_daemonic_process_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    assert loaded(Numbers(), 3) == (
        0,
        "1 data loader got no workers: they are made in a daemonic process, which may start no others",
    )


# -------------------------------------------------------------------------------------------------------------- "auto"


def text(dataset: Any, machine: str = "H100", **call: Any) -> str:
    return loaded(dataset, "auto", machine, **call)[1].removeprefix("1 data loader got ")


def test_auto_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert text(Numbers()) == 'num_workers=8: "auto" starts no more than 8'
    assert text(Numbers(), "cpu") == "num_workers=2: of the 16 cores most compute, as there is no GPU"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert text(Numbers()) == "num_workers=3: of the 4 cores of each of 4 processes one goes on with the loop"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert text(Numbers()) == "no workers: there is one core for each of 16 processes"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "many")
    monkeypatch.setattr(_room, "cores", lambda known: 3)
    assert text(Numbers()) == "num_workers=2: of the 3 cores one goes on with the loop"
    assert text(Numbers(), "cpu") == "no workers: of the 3 cores none can be spared"


def test_auto_never_starts_more_than_there_are_batches() -> None:
    assert text(Numbers(), batch_size=5) == "num_workers=3: there are 3 batches"
    assert text(Numbers(), batch_size=5, drop_last=True) == "num_workers=2: there are 2 batches"
    assert text(Numbers(), batch_size=12) == "no workers: there is no second batch"
    assert text(Numbers(4), batch_size=None) == "num_workers=4: there are 4 batches"
    assert text(Numbers(), sampler=[1, 2]) == "num_workers=2: there are 2 batches"
    batches = BatchSampler(SequentialSampler(Numbers()), 6, False)
    assert text(Numbers(), batch_sampler=batches) == "num_workers=2: there are 2 batches"
    assert text(Numbers(), batch_sampler=iter([[1]])) == 'num_workers=8: "auto" starts no more than 8', "nobody knows"


class Broken(Numbers):
    """Nobody knows how long it is."""

    def __len__(self) -> int:
        raise TypeError("there is no length")


def test_auto_where_nobody_knows_the_length() -> None:
    assert text(Broken()) == 'num_workers=8: "auto" starts no more than 8'


def test_auto_leaves_data_in_memory_to_this_process() -> None:
    tensors = TensorDataset(torch.ones(12))
    in_memory: list[Any] = [tensors, Subset(tensors, [1]), ConcatDataset([tensors, tensors]), [1], torch.ones(3)]
    for dataset in (*in_memory, torch.ones(3).numpy()):
        assert text(dataset).startswith("no workers: the data are in memory already")


def test_auto_leaves_datasets_that_write_to_this_process() -> None:
    assert text(Counting()) == (
        "no workers: the dataset writes given as it is read, which each worker would do to a copy of its own"
    )
    assert text(Subset(Counting(), range(12))).startswith("no workers: the dataset writes given")
    assert text(Holding(Remembering())).startswith("no workers: the dataset writes last")
    assert text(Global()).startswith("no workers: the dataset writes COUNTED")
    assert text(Making()).startswith("num_workers=8")
    assert loaded(Counting(), 3) == (
        3,
        "1 data loader got num_workers=3; the dataset writes given, each worker to a copy of its own",
    )


def test_auto_looks_at_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Holding([f"/a/path/to/an/image/{number:09}.jpeg" for number in range(20_000)])
    assert text(files).startswith("num_workers=8")
    monkeypatch.setattr(_room, "memory", lambda: 12 * 2**20)
    few = r"num_workers=3: each may come to copy 1\.\d+ MiB of the dataset, and 12 MiB are free"
    assert re.fullmatch(few, text(files))
    monkeypatch.setattr(_room, "memory", lambda: 2**20)
    assert text(files).startswith("no workers: each may come to copy")
    monkeypatch.setattr(_room, "memory", lambda: None)
    assert text(files).startswith("num_workers=8")
    monkeypatch.setattr(_room, "shared_memory", lambda: 2**26)
    assert text(files) == "no workers: /dev/shm, where workers leave their batches, has 64 MiB free"
    monkeypatch.setattr(_room, "shared_memory", lambda: None)
    assert text(files).startswith("num_workers=8")


# --------------------------------------------------------------------------------------------- how workers are started


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")


def test_auto_starts_none_where_they_are_not_forked(spawning: None) -> None:
    assert text(Numbers()) == (
        "no workers: workers are not forked here but started anew, which takes seconds and needs a script that can be "
        "imported"
    )
    assert loaded(Numbers(), 3)[0] == 3, "a number that is asked for is obeyed"


def test_what_is_sent_to_new_processes_has_to_be_pickled(spawning: None) -> None:
    assert loaded(Numbers(), 3, collate_fn=lambda batch: batch) == (
        0,
        "1 data loader got no workers: collate_fn is of a function "
        "(test_what_is_sent_to_new_processes_has_to_be_pickled.<locals>.<lambda>), and cannot be pickled for workers "
        "that are not forked",
    )
    assert loaded(Holding(lambda: 1), 3)[0] == 0
    assert loaded(Numbers(), 3, multiprocessing_context="fork", collate_fn=lambda batch: batch)[0] == 3


def test_the_context_of_the_call_decides() -> None:
    contexts: list[Any] = ["spawn", multiprocessing.get_context("spawn")]
    for context in contexts:
        assert _workers.starts_anew({"multiprocessing_context": context})
        assert loaded(Numbers(), "auto", multiprocessing_context=context)[0] == 8, "without workers torch refuses it"
        with asking(num_workers=2, persistent_workers="auto"):
            assert DataLoader(Numbers(), multiprocessing_context=context).persistent_workers
            assert not DataLoader(Numbers(), multiprocessing_context="fork").persistent_workers
            assert not DataLoader(Curriculum(), multiprocessing_context=context).persistent_workers
        with asking(num_workers=2, persistent_workers=True) as active:
            assert not DataLoader(Curriculum()).persistent_workers
            assert str(gather(active)["persistent_workers"].note).startswith(
                "1 data loader went without persistent_workers: the dataset has a set_epoch, of which they would "
            )


class Curriculum(Numbers):
    """Is told which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        self.length = epoch


def test_python_is_not_made_to_decide_how_it_starts_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda **how: asked.append(how))
    assert _workers.starts_anew({}) is (multiprocessing.get_all_start_methods()[0] != "fork")
    assert asked == [{"allow_none": True}]


# ------------------------------------------------------------------------------------------------------------- pinning


@pytest.mark.parametrize(
    ("machine", "asked", "pinned", "told"),
    [
        ("H100", True, True, "1 data loader got pin_memory=True"),
        ("H100", "auto", True, "1 data loader got pin_memory=True"),
        ("H100", False, False, "1 data loader got pin_memory=False"),
        ("cpu", "auto", False, "1 data loader got pin_memory=False: pinned memory is for copies to a GPU, and there "),
        ("apple", "auto", False, "1 data loader got pin_memory=False: torch pins no memory for Apple's GPU"),
    ],
)
def test_memory_is_pinned_for_gpus(machine: str, asked: object, pinned: bool, told: str) -> None:
    with pretend_hardware(machine), asking(pin_memory=asked) as active:
        assert DataLoader(Numbers()).pin_memory is pinned
        assert str(gather(active)["pin_memory"].note).startswith(told)


def test_without_a_gpu_it_is_left_out() -> None:
    with pretend_hardware("cpu"), asking(pin_memory=True) as active:
        assert DataLoader(Numbers()).pin_memory is False
        assert active.plan.refused[0].refused == "pinned memory is for copies to a GPU, and there is none here"


def test_what_cannot_be_pinned_is_not() -> None:
    for held in (torch.device("cuda"), torch.eye(3).to_sparse()):
        with pretend_hardware("H100"), asking(pin_memory=True):
            assert DataLoader(Holding(held)).pin_memory is False
