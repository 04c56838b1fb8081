"""Ranks that measure together decide alike, whatever their clocks, errors and numbers say, and the first one tells."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from torch import Tensor, nn

from tests.distributed import two
from torchturbo import (
    _together,
    benchmark,
    check_reproducible,
    distribute,
    hardware,
    memory_plan,
    profile_layers,
    tune,
    tune_loader,
)
from torchturbo._benchmark import race
from torchturbo._replay.here import Here
from torchturbo._together import OnAnotherRank, of_rank_0
from torchturbo._tune import search
from torchturbo.cli import main
from torchturbo.errors import ConfigError, RanksError
from torchturbo.hardware import Place

STEP = """
import torch
from torchturbo import distribute

def make():
    model = distribute(torch.nn.Linear(4, 1), "ddp")
    def step():
        print("said by the step")
        loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        return loss
    return step
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch, compiler: None) -> None:
    """`zero_grad` imports the compiler when it is first called; and ranks of one test are not those of the next."""
    monkeypatch.setattr(hardware._ranks, "_kept", [])
    monkeypatch.setattr(_together, "_met", 0)


class Other:
    """What the ranks do differently: one's clock is a thousand times as fast, and runs are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
        self.runs = 0
        run, clock = Here._run, time.perf_counter

        def counted(here: Here) -> Any:
            self.runs += 1
            return run(here)

        monkeypatch.setattr(Here, "_run", counted)
        if rank:
            monkeypatch.setattr(time, "perf_counter", lambda: 1000 * clock())

    def of_all(self, found: object) -> tuple[set[int], set[str]]:
        """How often steps have run on the ranks since this was last asked, and what was found there."""
        told: list[Any] = [None, None]
        dist.all_gather_object(told, (self.runs, str(found)))
        self.runs = 0
        return {runs for runs, _ in told}, {text for _, text in told}


def _step(strategy: Any, seen: Callable[[Tensor], Tensor] = lambda loss: loss) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    model = distribute(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), strategy, timeout=20)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(4, 8)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return seen(loss)

    return step


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_ranks_measure_in_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text(STEP)
    with two.ranks(monkeypatch) as rank:
        step = _step("ddp")
        other = Other(monkeypatch, rank)
        monkeypatch.setattr(race, "FEWEST", 1)  # or both clocks come to that

        for strategy in ("ddp", "fsdp"):
            found = benchmark(step if strategy == "ddp" else _step("fsdp"), "fast", budget=0.05)
            runs, told = other.of_all(found.to_json())
            assert len(runs) == len(told) == 1
            assert "measured on 2 ranks" in found.notes[0]
            assert found.batch == 8
            assert found["fast"].drift is not None

        _tunes(monkeypatch, tmp_path, other, rank)

        def differs(loss: Tensor) -> Tensor:
            return loss + int.from_bytes(os.urandom(2)) if rank else loss

        checked = check_reproducible(_step("ddp", differs), price_seconds=100.0)
        assert [len(each) for each in other.of_all(checked)] == [1, 1]
        assert checked.difference is not None
        assert "on rank 1" in str(checked)

        costs = profile_layers(step, steps=1, trace=tmp_path / f"{rank}.json")
        assert [len(each) for each in other.of_all(costs.to_json())] == [1, 1]
        assert (tmp_path / f"{rank}.json").exists() == (rank == 0)

        def fails(loss: Tensor) -> Tensor:
            if rank and torch.is_autocast_enabled("cpu"):
                raise ValueError("on purpose")
            return loss

        found = benchmark(_step("ddp", fails), autocast="bf16", budget=0.01)
        assert [len(each) for each in other.of_all(found.to_json())] == [1, 1]
        assert found.rows[-1].failed is not None
        assert "rank 1 has raised ValueError: on purpose" in found.rows[-1].failed

        loaded = tune_loader(list(range(64)), 0.3, batch_size=8)
        assert len(other.of_all(loaded.to_json())[1]) == 1

        _refused(step, rank)

        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, ["profile", "step.py:make()", "--steps", "1"])
        assert result.exit_code == 0, result.output
        assert bool(result.stdout) == (rank == 0)

        # Each for itself they would do other things, which a step without collectives lives to tell.
        other.of_all(None)
        alone, x = nn.Linear(8, 1), torch.ones(2, 8)
        with monkeypatch.context() as patched:
            patched.setattr(hardware._ranks, "store", lambda: None)
            benchmark(lambda: alone(x).sum().backward(), "exact", budget=0.1)
        assert len(other.of_all(None)[0]) == 2
        dist.barrier()


def _tunes(monkeypatch: pytest.MonkeyPatch, folder: Path, other: Other, rank: int) -> None:
    """A search that finds something, within a budget that is over on one rank at once."""
    monkeypatch.setattr(search, "_MANY", 3)
    few = [{"tf32": True}, {"deterministic": True}]
    monkeypatch.setattr(search, "changes", lambda *_: iter(few if rank == 0 else [*few, {"autocast": "bf16"}]))

    def sleeps(loss: Tensor) -> Tensor:
        if torch.backends.mkldnn.enabled:
            time.sleep(0.03)
        return loss

    also = [{"mkldnn_enabled": False}]
    tuned = tune(_step("ddp", sleeps), budget=60, write=folder / f"{rank}.toml", also=also)
    assert [len(each) for each in other.of_all(tuned.tuning.to_json())] == [1, 1]
    assert tuned["mkldnn_enabled"] is False  # another one may seem faster too, by noise
    assert len(tuned.tuning.tried) == 3
    assert (folder / f"{rank}.toml").exists() == (rank == 0)


def _refused(step: Callable[[], Tensor], rank: int) -> None:
    with pytest.raises(RanksError, match="fresh=True runs the function in processes that would be no ranks"):
        check_reproducible(step, fresh=True)
    with pytest.raises(
        RanksError, match=r"what benchmark\(\) is asked for is .*2\.0.* on rank 1, and .*1\.0.* on rank 0"
    ):
        benchmark(step, budget=1.0 + rank)
    with pytest.raises(RanksError if rank else ConfigError, match="cannot be written to"):
        tune(step, write="/proc/none/torchturbo.toml")
    with pytest.raises(RanksError, match=r"FSDP2 gathers its shards in the type.*reference=\"exact\""):
        benchmark(_step("fsdp"), "exact", reference="float64")
    with pytest.raises(RanksError, match=r"give it the plain model, as model\.module"):
        memory_plan(distribute(nn.Linear(2, 2), "ddp"), torch.ones(1, 2), loss=torch.sum)


# ------------------------------------------------------------------------------------------------------ how they agree


@pytest.fixture
def crews() -> list[_together._Crew]:
    """Two ranks in two threads' hands."""
    store = dist.HashStore()
    return [_together._Crew(store, Place(rank, 2), "benchmark") for rank in range(2)]


def _both(*acts: Callable[[], Any]) -> list[Any]:
    """What comes of two acts at the same time, or what they raise."""

    def caught(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(caught, acts))


LONG, SHORT = timedelta(seconds=20), timedelta(milliseconds=50)


def test_what_counts_is_the_same_on_all(crews: list[_together._Crew]) -> None:
    one, other = crews
    for settle, expected in ((of_rank_0, 3), (max, 5), (sum, 8)):
        found = _both(partial(one.exchange, 3, settle, LONG), partial(other.exchange, 5, settle, LONG))
        assert found == [expected] * 2


def test_what_raises_on_one_raises_on_all_and_they_go_on(crews: list[_together._Crew]) -> None:
    one, other = crews
    _, told = _both(lambda: one.raised(ValueError("no")), lambda: other.exchange(1, of_rank_0, LONG))
    assert isinstance(told, OnAnotherRank)
    assert str(told) == "rank 0 has raised ValueError: no"
    told, _ = _both(lambda: one.exchange(1, of_rank_0, LONG), lambda: other.raised(StopIteration()))
    assert isinstance(told, StopIteration)
    assert _both(lambda: one.exchange(1, max, LONG), lambda: other.exchange(2, max, LONG)) == [2, 2]


def test_asked_for_is_the_same_where_it_only_lies_elsewhere(
    crews: list[_together._Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_together, "_crew", crews[0])
    for other, found in (("<f at 0x2>", None), ("<g at 0x1>", RanksError)):
        act = partial(crews[1].exchange, _together._ADDRESS.sub("", other), of_rank_0, LONG)
        mine, _ = _both(partial(_together.alike, "it", _Named("<f at 0x1>")), act)
        assert mine is None if found is None else isinstance(mine, found)


class _Named(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def test_whoever_leaves_is_not_waited_for(crews: list[_together._Crew]) -> None:
    one, other = crews
    other.leave(KeyboardInterrupt())
    for _ in range(2):
        with pytest.raises(RanksError, match=r"rank 1 has raised KeyboardInterrupt.*rank 1 has left benchmark\(\)"):
            one.exchange(1, of_rank_0, LONG)


def test_an_error_that_the_others_do_not_hear_of_says_so(
    crews: list[_together._Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_together, "AFTER_AN_ERROR", SHORT)
    one, other = crews
    error = ValueError("no")
    other.raised(error)
    assert "rank 0 has not come to where rank 1 is in benchmark() within 0.05 seconds" in error.__notes__[0]
    with pytest.raises(RanksError, match="started without torchrun"):
        one.exchange(1, of_rank_0, LONG)  # it comes after all
    with pytest.raises(RanksError, match=r"rank 1 has raised ValueError: no\. rank 0 has not come"):
        other.exchange(1, of_rank_0, LONG)


def test_whoever_begins_alone_is_told_to_call_it_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware._ranks, "store", dist.HashStore)
    monkeypatch.setattr(_together, "place", lambda: Place(0, 2))
    monkeypatch.setattr(_together, "TO_BEGIN", SHORT)
    with pytest.raises(RanksError, match=r"call benchmark\(\) on every rank"):
        benchmark(lambda: None)
    assert not _together.several()


def test_alone_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    threads = threading.active_count()
    with _together.together("benchmark", seconds=1):
        assert _together.agreed(3, lambda _: 4) == 3
        assert _together.on_all(lambda: 5, max) == 5
        assert _together.leads()
        assert not _together.told("all")
    assert (hardware._ranks._kept, threading.active_count()) == ([], threads)
