"""What is counted beside the time: recompilations, how busy a GPU is; and steps that run out of batches."""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.hardware.driver import Card, Driver
from torchturbo import benchmark, hardware
from torchturbo._benchmark.contenders import Contender, baseline, contender
from torchturbo._benchmark.race import Race
from torchturbo._replay.here import Here


def _race(step: Any, *others: Contender) -> Race:
    here = Here(step)
    here.find(nullcontext())
    return Race(here, [baseline(), *others])


def test_a_step_whose_shapes_change_is_compiled_again(fresh_compiler: None) -> None:
    model = nn.Linear(4, 4)
    sizes = iter([2, 2, 2, 2, 5, 7, *range(8, 40)])
    keep = sizes.__next__  # what a builtin holds is not put back

    def step() -> Any:
        return model(torch.ones(keep(), 4))

    race = _race(step, contender("exact", {"compile": {"backend": "eager", "dynamic": False}}))
    plain, compiled = race.lanes
    race.steps = 1
    for lane in race.lanes:
        lane.first = race._sample(lane, 1)
    assert compiled.failed is None
    for _ in range(3):
        race.round()
    assert plain.recompiles == 0
    assert compiled.recompiles == 3


def test_a_step_whose_shapes_stay_is_compiled_once(fresh_compiler: None) -> None:
    model, batch = nn.Linear(4, 4), torch.ones(2, 4)
    found = benchmark(lambda: model(batch), "exact", budget=0.05, compile={"backend": "eager"})
    assert [row.recompiles for row in found] == [0] * len(found.rows)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver with two GPUs, of which torch uses the second."""
    driver = Driver(cards=[Card(uuid="GPU-0"), Card(uuid="GPU-1")])
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr("torchturbo._benchmark.race.BUSY_SECONDS", 0.01)
    return driver


def test_how_busy_the_gpu_is_is_asked_while_it_is(gpus: Driver) -> None:
    ran: list[int] = []
    mark = ran.append
    asked: list[int] = []
    utilization = gpus.nvmlDeviceGetUtilizationRates

    def watched(card: Card) -> Any:
        asked.append(len(ran))
        return utilization(card)

    gpus.nvmlDeviceGetUtilizationRates = watched  # type: ignore[method-assign]
    sys.modules["pynvml"] = gpus.module()
    race = _race(lambda: mark(1))
    race.warm_up(race.lanes[0])
    race.round()
    before = len(ran)
    race.look(race.lanes[0])
    assert race.lanes[0].utilization == 97.0
    assert asked[-1] > before + 2


def test_a_gpu_that_does_not_tell_has_none(gpus: Driver) -> None:
    gpus.refused.add("nvmlDeviceGetUtilizationRates")
    race = _race(lambda: None)
    race.warm_up(race.lanes[0])
    race.round()
    race.look(race.lanes[0])
    assert race.lanes[0].utilization is None


def test_without_a_gpu_nobody_is_asked() -> None:
    if hardware.readings():
        pytest.skip("there is one")
    assert [row.utilization for row in benchmark(lambda: 1, "exact", budget=0.05)] == [None] * 2


def test_samples_have_no_more_steps_than_batches_are_left() -> None:
    batches = iter(DataLoader(torch.arange(10.0), batch_size=1))

    def step() -> Any:
        return next(batches) + 1

    found = benchmark(step, "exact", budget=0.05)
    assert 1 < found.steps <= 10
    assert len(list(batches)) == 10


def test_one_batch_that_is_left_is_enough_but_for_memory() -> None:
    batches = iter(DataLoader(torch.arange(1.0), batch_size=1))
    found = benchmark(lambda: next(batches) + 1, "exact", budget=0.05)
    assert (found.steps, found.rows[0].memory) == (1, None)
    assert any("memory of as it is was not measured: it takes two steps" in note for note in found.notes)
    assert next(batches).item() == 0.0


def test_a_generator_that_moves_on_is_told() -> None:
    batches = (torch.ones(1) for _ in range(1_000_000))
    found = benchmark(lambda: next(batches), "exact", budget=0.02)
    assert any(note.startswith("batches (a generator) moves on with each run") for note in found.notes)


def test_a_file_that_a_step_writes_to_is_no_iterator_that_moves_on(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        found = benchmark(lambda: log.write("a step\n"), "exact", budget=0.02)
    assert not [note for note in found.notes if "moves on" in note]


@pytest.mark.parametrize(("seconds", "steps", "rounds"), [(100.0, 64, 301), (0.41, 6, 43), (0.01, 2, 8)])
def test_a_short_time_has_more_and_shorter_samples(seconds: float, steps: int, rounds: int) -> None:
    """With a step of a millisecond: samples of two steps at least, and some 41 of them if the time allows."""

    class Clocked(Race):
        def seconds_of_a_round(self) -> float:
            self.lanes[0].samples[self.rounds] = 1e-3
            return 0.1 * self.steps / 64

    race = Clocked(Here(lambda: None), [baseline()])
    race.steps = 64
    assert (race.fit(seconds), race.steps) == (rounds, steps)


def test_the_collector_waits_while_a_step_is_timed() -> None:
    seen: list[bool] = []
    see = seen.append
    here = Here(lambda: see(gc.isenabled()))
    here.seconds(nullcontext(), 2)
    assert seen == [False, False]
    assert gc.isenabled()
