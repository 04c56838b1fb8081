"""Schedulers of learning rates step with their optimizers: after a window, after an epoch, and after a flush."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR

from tests.accumulating.loops import SCHEDULERS, Case, check
from torchturbo import turbo

# torch 2.8 has SequentialLR call what torch 2.8 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in")
EPOCHS = frozenset({2, 5, 8})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_by_the_batch_and_by_the_epoch(scheduler: str, inside: bool, every: int) -> None:
    for flushes in (False, True):
        for by_epoch in (False, True):
            check(
                Case(
                    every,
                    9,
                    scheduler=scheduler,
                    epochs=EPOCHS,
                    flushes=flushes,
                    by_epoch=by_epoch,
                    inside=inside,
                    optimizer="AdamW" if scheduler == "OneCycleLR" else "momentum",
                )
            )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_with_an_overflow_and_two_optimizers(scheduler: str) -> None:
    check(Case(2, 9, "fp16", scheduler=scheduler, two=True, overflow=frozenset({3}), epochs=EPOCHS, flushes=True))


def test_a_step_before_the_optimizers_comes_once_for_each_of_theirs() -> None:
    model, rates = nn.Linear(2, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, 1, 0.5)
    optimizer.step()  # or torch says, rightly, that this order is wrong
    optimizer.register_step_post_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    with turbo("fast", autocast=None, accumulate=3):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            scheduler.step()
            optimizer.step()
    assert rates == [0.5, 0.25]


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any = None) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    if scheduler is not None:
        scheduler.step()


def test_one_that_is_made_midway_waits_from_then_on() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(2):
            _train(model, optimizer)
        scheduler = StepLR(optimizer, 1, 0.5)
        came = []
        for _ in range(5):
            _train(model, optimizer, scheduler)
            came.append(scheduler.last_epoch)
    assert came == [0, 1, 1, 2, 2]


def test_one_of_an_optimizer_that_never_waits_steps_each_time() -> None:
    model = nn.Linear(2, 1)
    optimizer, other = (torch.optim.SGD(model.parameters(), lr=1.0) for _ in range(2))
    scheduler = StepLR(other, 1, 0.5)
    other.step()
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(4):
            _train(model, optimizer, scheduler)
    assert scheduler.last_epoch == 4


def test_the_schedulers_classes_are_as_before() -> None:
    kinds = (LRScheduler, StepLR, ReduceLROnPlateau)
    before = [vars(kind).get("step") for kind in kinds]
    with turbo("fast", autocast=None, accumulate=2):
        assert vars(LRScheduler)["step"] is not before[0]
        with turbo("fast", autocast=None, accumulate=3):
            pass
        assert vars(LRScheduler)["step"] is not before[0]
    assert [vars(kind).get("step") for kind in kinds] == before
