"""Settings for a data loader: what is chosen of what was seen, and that nothing is left behind by looking."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler

from tests.laws.around import NOTHING
from torchturbo import LoaderTuning, cache_of, cached, tune_loader, turbo, watch
from torchturbo._tune_loader import data, measure
from torchturbo._tune_loader.loaders import Source
from torchturbo._tune_loader.measure import Meter, Visit
from torchturbo.errors import OptionValueError, TargetError, in_a_line
from torchturbo.hardware import _room
from torchturbo.testing import pretend_hardware


class Numbers(Dataset[Tensor]):
    """Numbers that draw, and count how often they are read."""

    def __init__(self, length: int = 32) -> None:
        self.length = length
        self.read = 0
        self.kept: list[Any] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        self.read += 1
        return index + torch.rand(2) * random.random()


class Keeping(Numbers):
    """One that keeps memory for whatever it reads."""

    def __getitem__(self, index: int) -> Tensor:
        self.kept.append(bytearray(b"1" * 2**19))
        return super().__getitem__(index)


class Broken(Numbers):
    def __getitem__(self, index: int) -> Tensor:
        raise LookupError(f"no sample {index}")


class Streamed(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(12))


class Counted(Sampler[int]):
    """A sampler that remembers how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        self.begun += 1
        return iter(range(8))


MIB = 2**20


def model(
    each: Callable[[dict[str, Any]], float],
    startup: Callable[[dict[str, Any]], float] = lambda options: 0.01 * options["num_workers"],
    memory: int = 100 * MIB,
) -> Callable[..., Visit]:
    """A machine whose loaders are as fast as is said: what stands in for looking at the clock."""

    def visit(self: Meter, options: dict[str, Any], seconds: float) -> Visit:
        return Visit(startup(options), each(options), memory * (1 + options["num_workers"]), 10)

    return visit


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts such a machine in place, with eight cores."""

    def put(visit: Callable[..., Visit], restart: float = 0.0, grows: int = 0) -> None:
        monkeypatch.setattr(Meter, "visit", visit)
        growth = data.Growth((MIB, MIB + grows, MIB + 2 * grows), 10, grows)
        monkeypatch.setattr(Meter, "epochs", lambda self, options, seconds: (restart, growth))
        monkeypatch.setattr(_room, "cores", lambda known: 8)
        monkeypatch.setattr(_room, "memory", lambda: 10_000 * MIB)

    return put


def found(**options: Any) -> LoaderTuning:
    return tune_loader(Numbers(3200), "20 s", **{"batch_size": 1, **options})


def test_the_fewest_workers_that_are_as_fast_are_chosen(machine: Any) -> None:
    machine(model(lambda options: 0.01 / min(4.2, 1 + options["num_workers"])))
    its = found()
    assert its.best["num_workers"] == 4
    assert its.baseline == {"num_workers": 0, "pin_memory": False}
    assert its.speedup is not None
    assert its.speedup.value > 4
    outcomes = {tried.options["num_workers"]: tried.outcome for tried in reversed(its.tried)}
    assert outcomes == {0: "slower", 1: "slower", 2: "slower", 4: "chosen", 8: "as fast"}
    assert "An epoch of 3200 batches takes 7.66 s with num_workers=4, and 10.7 s with 2 workers." in its.why
    assert "With 8 workers it is no faster" in its.why


def test_workers_are_enough_where_waiting_ends(machine: Any) -> None:
    machine(model(lambda options: 0.01 / (1 + options["num_workers"])))
    assert found().best["num_workers"] > 8  # more than there are cores, since more were worth it each time
    its = found(step_seconds=0.006)
    assert its.best["num_workers"] == 1
    assert "A batch comes each 5 ms, and a step takes 6 ms: there is no waiting." in its.why


def test_what_it_takes_to_start_counts_in_a_short_epoch(machine: Any) -> None:
    machine(model(lambda options: 0.01 / (1 + options["num_workers"]), lambda options: 0.2 * options["num_workers"]))
    assert found(batches=4).best["num_workers"] == 0
    assert found(batches=4000).best["num_workers"] >= 4


def test_workers_stay_where_that_saves_time_and_do_not_where_memory_grows(machine: Any) -> None:
    fast = model(lambda options: 0.01 / min(3, 1 + options["num_workers"]), lambda options: 1.0)
    machine(fast, restart=0.01)
    its = found()
    assert its.best["persistent_workers"] is True
    assert "Workers stay from epoch to epoch: the first batch comes after 1 s, and after 10 ms" in its.why
    machine(fast, restart=0.99)
    assert found().best["persistent_workers"] is False
    machine(fast, restart=0.01, grows=5 * MIB)
    its = found()
    assert its.best["persistent_workers"] is False
    assert "Memory grew by 5 MiB with each epoch of 10 batches: what workers keep is given back" in its.why


def test_what_does_not_fit_is_not_chosen(machine: Any) -> None:
    machine(model(lambda options: 0.01 / (1 + options["num_workers"]), memory=2000 * MIB))
    its = found()
    assert its.best["num_workers"] == 2
    (large,) = [tried for tried in its.tried if tried.options["num_workers"] == 4]
    assert large.outcome == "too large"
    assert large.why == "7.81 GiB more than without, and 9.77 GiB were free"


def test_more_is_fetched_ahead_where_that_is_faster(machine: Any) -> None:
    machine(model(lambda options: 0.004 - 0.0005 * options.get("prefetch_factor", 0)))
    assert found().best["prefetch_factor"] == 4


def test_what_fails_with_workers_is_told_and_what_fails_without_comes_out(machine: Any) -> None:
    def visit(self: Meter, options: dict[str, Any], seconds: float) -> Visit:
        if options["num_workers"]:
            raise RuntimeError("a worker was killed\nby somebody")
        return Visit(0.0, 0.01, MIB, 10)

    machine(visit)
    its = found()
    assert its.best == {"num_workers": 0, "pin_memory": False}
    assert {tried.outcome for tried in its.tried} == {"chosen", "failed"}
    assert its.tried[1].why == "RuntimeError: a worker was killed"
    assert "failed: RuntimeError: a worker was killed" in " ".join(its.to_text(200).split())
    assert "s of 20 s, on " in its.to_text(200)


def test_what_a_worker_raises_is_told_in_its_own_words() -> None:
    try:
        raise ValueError("there is no item 7")
    except ValueError:
        handed_on = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(ValueError, match="Caught ValueError") as found:
        handed_on.reraise()
    assert in_a_line(found.value) == "ValueError: there is no item 7"


def test_what_only_workers_can_read_is_measured_with_workers(machine: Any) -> None:
    def visit(self: Meter, options: dict[str, Any], seconds: float) -> Visit:
        if not options["num_workers"]:
            raise AttributeError("no file: worker_init_fn opens it")
        return Visit(0.0, 0.01, MIB, 10)

    machine(visit)
    its = found(num_workers=2)
    assert its.best["num_workers"] == 1
    assert [tried.why for tried in its.tried if tried.outcome == "failed"] == [
        "AttributeError: no file: worker_init_fn opens it"
    ]


def test_memory_is_pinned_where_that_is_faster(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(model(lambda options: 0.003 if options["pin_memory"] else 0.004))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pretend_hardware("H100"):
        its = found()
    assert its.best["pin_memory"] is True
    assert its.best["num_workers"] == 0
    assert not any("pin_memory" in note for note in its.notes)


def test_an_interrupt_ends_it_with_the_best_so_far(machine: Any) -> None:
    visits = []
    fast = model(lambda options: 0.01 / (1 + options["num_workers"]))

    def visit(self: Meter, options: dict[str, Any], seconds: float) -> Visit:
        visits.append(options)
        if len(visits) == 3:
            raise KeyboardInterrupt
        return fast(self, options, seconds)

    machine(visit)
    its = found()
    assert its.interrupted
    assert its.best["num_workers"] == 1
    assert its.best["persistent_workers"] is False
    assert "interrupted: this is the best so far" in str(its)
    assert "there was no time to look at memory from epoch to epoch" in its.notes
    visits[:] = [{}, {}]
    with pytest.raises(KeyboardInterrupt):
        found()


# ------------------------------------------------------------------------------------------------------------ for real


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """Python keeps one of its own from the first spawned worker on, which another test may have had."""
    before = psutil.Process().children()
    yield
    assert [child for child in psutil.Process().children() if child not in before] == []


@pytest.fixture(autouse=True)
def few_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, whatever this machine has."""
    monkeypatch.setattr(_room, "cores", lambda known: 2)


def test_nothing_is_left_behind() -> None:
    dataset, generator = Numbers(), torch.Generator().manual_seed(4)
    loader = DataLoader(dataset, 4, sampler=RandomSampler(dataset, generator=generator), generator=generator)
    held = list(vars(loader).items())
    stands = generator.get_state()
    streams = random.getstate(), torch.get_rng_state()
    its = tune_loader(loader, 0.5)
    assert (random.getstate(), torch.get_rng_state().tolist()) == (streams[0], streams[1].tolist())
    assert torch.equal(generator.get_state(), stands)
    assert list(vars(loader).items()) == held
    assert (dataset.read, dataset.kept) == (0, [])
    assert its.batches == 8
    assert {tried.options["num_workers"] for tried in its.tried} >= {0, 1, 2}
    assert len(list(DataLoader(dataset, 4, **its.best))) == 8


def test_a_sampler_of_somebodys_own_is_as_it_was() -> None:
    sampler = Counted()
    tune_loader(DataLoader(Numbers(), 4, sampler=sampler), 0.2)
    assert sampler.begun == 0


def test_a_block_with_a_seed_does_not_notice() -> None:
    def run(tuned: bool) -> list[Any]:
        with turbo(NOTHING, seed=1, prefetch=True, num_workers=1):
            if tuned:
                tune_loader(Numbers(), 0.1, batch_size=4)
            return [batch.tolist() for batch in DataLoader(Numbers(), 4, shuffle=True, num_workers=0)]

    assert run(True) == run(False)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_grows_from_epoch_to_epoch_is_seen(workers: int) -> None:
    """In this process, or in a worker that stays; and a dataset that keeps nothing is not said to grow."""
    for kind in (Keeping, Numbers):
        dataset = kind()
        source = Source(DataLoader(dataset, 4, num_workers=workers), None)
        with source.kept():
            assert source.draw()
            _, growth = source.apart(lambda made=source: Meter(made).epochs(made.baseline, 10))
        assert len(growth.memory) == Meter.EPOCHS - 1
        assert growth.batches == 8
        assert (growth.each > 8 * MIB) is (kind is Keeping)
        assert dataset.kept == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_dataset_raises_comes_out(workers: int) -> None:
    with pytest.raises(LookupError, match="no sample 0"):
        tune_loader(Broken(), 0.2, num_workers=workers)


def test_what_workers_would_get_wrong_is_not_given_to_them() -> None:
    its = tune_loader(Streamed(), 0.1, batch_size=4)
    assert {tried.options["num_workers"] for tried in its.tried} == {0}
    assert "No workers, since the dataset is an IterableDataset" in its.why
    assert any("1000 batches are taken for one" in note for note in its.notes)
    dataset = Numbers()
    with open(__file__, encoding="utf-8") as dataset.file:  # type: ignore[attr-defined]
        its = tune_loader(dataset, 0.1)
    assert any("no workers were tried: the dataset.file is an open file" in note for note in its.notes)


def test_it_says_that_what_is_cached_is_measured_without_its_cache() -> None:
    loader: Any = cached(DataLoader(Numbers(), batch_size=4, collate_fn=len))
    built = cache_of(loader).stats().built
    its = tune_loader(loader, 0.1)
    assert any("its batches are cached: what was measured is building them" in note for note in its.notes)
    assert cache_of(loader).stats().built == built


def test_memory_is_read_where_the_system_tells_little(monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Process()
    assert measure._bytes(process) > MIB

    def refused(self: psutil.Process) -> Any:
        raise psutil.AccessDenied

    def gone(self: psutil.Process) -> Any:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)
    assert measure._bytes(process) > MIB
    monkeypatch.setattr(psutil.Process, "memory_full_info", gone)
    assert measure._bytes(process) == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(OptionValueError, match="budget='soon': expected a time"):
        tune_loader(Numbers(), "soon")
    with pytest.raises(OptionValueError, match="step_seconds=0: expected the seconds that a step takes"):
        tune_loader(Numbers(), 1, step_seconds=0)
    with pytest.raises(OptionValueError, match="step_seconds='5 ms': expected the seconds that a step takes"):
        tune_loader(Numbers(), 1, step_seconds="5 ms")  # type: ignore[arg-type]
    for number in (0, 2.5):
        with pytest.raises(OptionValueError, match=f"batches={number}: expected how many batches"):
            tune_loader(Numbers(), 1, batches=number)  # type: ignore[arg-type]
    with pytest.raises(OptionValueError, match="batch_size: a data loader has its settings already"):
        tune_loader(DataLoader(Numbers()), 1, batch_size=4)
    with pytest.raises(TargetError, match=r"and watch\(<.*>\) is neither: give what is within it"):
        tune_loader(watch(DataLoader(Numbers())), 1)
    with pytest.raises(TargetError, match=r"takes a torch.utils.data.DataLoader or a dataset, and 3 is neither"):
        tune_loader(3, 1)
    for what in (torch.tensor(0.5), "train.py"):  # a step's loss, a name
        with pytest.raises(TargetError, match=r"takes a torch.utils.data.DataLoader or a dataset, and .* is neither"):
            tune_loader(what, 1)
    with pytest.raises(TargetError, match=r"there is nothing to measure: .* has no batches"):
        tune_loader(DataLoader(Numbers(2), 4, drop_last=True), 1)


def test_it_is_told_in_every_form() -> None:
    its = tune_loader(Numbers(8), 0.1, batch_size=4)
    told = json.loads(its.to_json())
    assert told["best"] == dict(its.best)
    assert told["tried"][0]["options"] == {"num_workers": 0, "pin_memory": False}
    text = str(its)
    assert text.startswith("DataLoader(..., num_workers=")
    assert "Numbers, 2 batches an epoch" in text
    assert repr(its).startswith(f"<LoaderTuning: {len(its.tried)} tried, num_workers=")
