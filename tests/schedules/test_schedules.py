"""Schedules: their curves, step for step, and that they follow the optimizer where its steps wait or are left out."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from torchturbo import accelerate, turbo
from torchturbo.errors import OptionValueError, TargetError
from torchturbo.schedules import one_cycle, warmup_cosine, warmup_linear

Make = Callable[..., LRScheduler]
BY_NAME: dict[str, Make] = {"cosine": warmup_cosine, "linear": warmup_linear, "one_cycle": one_cycle}


def optimizer(kind: type[torch.optim.Optimizer] = torch.optim.AdamW, **options: Any) -> torch.optim.Optimizer:
    first, second = nn.Linear(2, 1), nn.Linear(1, 1)
    groups = [{"params": first.parameters(), "lr": 0.1}, {"params": second.parameters(), "lr": 3.0}]
    return kind(groups, **options)


def curve(scheduler: LRScheduler, steps: int, group: int = 0) -> list[float]:
    """The learning rates that the steps of an optimizer are taken with."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[group]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@given(total=st.integers(1, 40), warmup=st.integers(0, 40), ratio=st.sampled_from([0.0, 0.1, 1.0]))
def test_the_curves_are_what_they_are_said_to_be(total: int, warmup: int, ratio: float) -> None:
    warmup = min(warmup, total)

    def expected(step: int, down: Callable[[float], float]) -> float:
        if step < warmup:
            return step / warmup
        way = min(1.0, (step - warmup) / max(1, total - warmup))
        return ratio + (1 - ratio) * down(way)

    downs: dict[str, Callable[[float], float]] = {
        "cosine": lambda way: (1 + math.cos(math.pi * way)) / 2,
        "linear": lambda way: 1 - way,
    }
    for name, down in downs.items():
        for group, top in enumerate((0.1, 3.0)):
            made = BY_NAME[name](optimizer(), total=total, warmup=warmup, min_ratio=ratio)
            its = curve(made, total + 5, group)
            assert its == pytest.approx([top * expected(step, down) for step in range(total + 5)], abs=1e-12)


def test_they_are_those_of_transformers_step_for_step() -> None:
    transformers = pytest.importorskip("transformers.optimization")
    for make, theirs in (
        (warmup_cosine, transformers.get_cosine_schedule_with_warmup),
        (warmup_linear, transformers.get_linear_schedule_with_warmup),
    ):
        ours, its = make(optimizer(), total=50, warmup=7), theirs(optimizer(), 7, 50)
        assert curve(ours, 51, 1) == pytest.approx(curve(its, 51, 1), rel=1e-14)  # beyond that, theirs rises again


def test_one_cycle_is_torchs_and_stays_at_its_end() -> None:
    ours = one_cycle(optimizer(), total=20)
    theirs = OneCycleLR(optimizer(), max_lr=[0.1, 3.0], total_steps=20)
    rates = curve(ours, 30)
    assert rates[:20] == curve(theirs, 20)
    assert set(rates[20:]) == {rates[19]}
    assert ours.last_epoch == 30
    betas = [group["betas"][0] for group in ours.optimizer.param_groups]
    assert betas == [0.95, 0.95]


def test_one_cycle_switches_no_momentum_on() -> None:
    plain, heavy = optimizer(torch.optim.SGD), optimizer(torch.optim.SGD, momentum=0.9)
    one_cycle(plain, total=20), one_cycle(heavy, total=20)
    assert [its.param_groups[0]["momentum"] for its in (plain, heavy)] == [0, 0.95]
    left = optimizer()
    one_cycle(left, total=20, momentum=None)
    assert left.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("warmup", [5, 0.1, "10 %", "10%", "10.0 %"])
def test_a_warmup_in_steps_or_as_a_part(warmup: int | float | str) -> None:
    assert curve(warmup_linear(optimizer(), total=50, warmup=warmup), 50) == curve(
        warmup_linear(optimizer(), total=50, warmup=5), 50
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_they_pickle_copy_and_go_on_from_a_checkpoint(name: str) -> None:
    whole = curve(BY_NAME[name](optimizer(), total=20), 24)
    first = BY_NAME[name](optimizer(), total=20)
    curve(first, 9)
    for again in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert curve(again, 15) == whole[9:]
    fresh = BY_NAME[name](optimizer(), total=20)
    fresh.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    fresh.optimizer.load_state_dict(first.optimizer.state_dict())
    assert curve(fresh, 15) == whole[9:]


# ---------------------------------------------------------------------------------------- steps that do not happen


def trained(name: str, steps: int, overflows: frozenset[int] = frozenset(), **options: Any) -> list[float]:
    """The learning rates that steps were taken with, of a loop that calls both step() after each batch."""
    torch.manual_seed(0)
    model, rates = nn.Linear(2, 1), []
    its = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = BY_NAME[name](its, total=8)
    its.register_step_post_hook(lambda *_: rates.append(its.param_groups[0]["lr"]))
    with turbo("exact", **options):
        for step in range(steps):
            its.zero_grad()
            loss = model(torch.ones(4, 2)).square().mean()
            (loss * (float("inf") if step in overflows else 1.0)).backward()
            its.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize("name", BY_NAME)
def test_they_follow_the_optimizer(name: str) -> None:
    plain = trained(name, 8)
    assert trained(name, 32, accumulate=4) == plain
    assert trained(name, 11, frozenset({0, 3, 10}), autocast="fp16", init_scale=256.0) == plain
    assert trained(name, 18, frozenset({3, 17}), autocast="fp16", init_scale=256.0, accumulate=2) == plain[:7]


def test_they_follow_a_step_in_a_function_that_has_ended() -> None:
    model = nn.Linear(2, 1)
    its = torch.optim.SGD(model.parameters(), lr=0.1)
    schedulers = [make(its, total=8) for make in (warmup_cosine, warmup_linear)]

    @accelerate(profile="exact", autocast="fp16", init_scale=256.0)
    def step(factor: float) -> None:
        its.zero_grad()
        (model(torch.ones(4, 2)).square().mean() * factor).backward()
        its.step()

    for factor, expected in ((1.0, 1), (float("inf"), 1), (1.0, 2), (float("inf"), 2)):
        step(factor)
        with turbo("inference"):
            model(torch.ones(1, 2))  # a validation in between
        for scheduler in schedulers:
            scheduler.step()
        assert [each.last_epoch for each in schedulers] == [expected] * 2
    for scheduler in schedulers:  # and without a block
        its.step()
        scheduler.step()
    assert [each.last_epoch for each in schedulers] == [3] * 2


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total": 0}, "total=0: expected how many optimizer steps the run takes, an int of at least 1"),
        ({"total": 10.0}, "total=10.0: expected how many optimizer steps the run takes, an int of at least 1"),
        ({"total": 10, "warmup": 12}, "warmup=12: longer than the run, which is total=10 optimizer steps"),
        *(
            (
                {"total": 10, "warmup": wrong},
                f"warmup={wrong!r}: expected a number of steps, as 500, or a part of the run, as 0.1 or '10 %'",
            )
            for wrong in (-1, 1.0, "many", "ten %", True, "120 %", -0.5, None)
        ),
        (
            {"total": 10, "min_ratio": 1e3},
            "min_ratio=1000.0: expected a part of the learning rate, from 0 to 1: 0.1 leaves a tenth of it",
        ),
    ],
)
def test_what_makes_no_schedule_is_refused(options: dict[str, Any], message: str) -> None:
    for make in (warmup_cosine, warmup_linear):
        with pytest.raises(OptionValueError) as found:
            make(optimizer(), **options)
        assert str(found.value) == message


def test_what_makes_no_cycle_is_refused() -> None:
    with pytest.raises(OptionValueError) as found:
        one_cycle(optimizer(), total=3)
    assert str(found.value) == (
        "warmup=0.3: 1 of 3 steps leave no way up or down; one cycle takes 2 steps up at least, and 1 down"
    )
    with pytest.raises(OptionValueError, match="expected parts of the learning rate at the top, more than 0"):
        one_cycle(optimizer(), total=50, start_ratio=0.0)


@pytest.mark.parametrize("schedule", [warmup_cosine, warmup_linear, one_cycle])
def test_what_is_no_optimizer_is_refused(schedule: Any) -> None:
    with pytest.raises(TargetError, match="a schedule is for an optimizer, and this is a Linear"):
        schedule(nn.Linear(2, 2), total=10)
