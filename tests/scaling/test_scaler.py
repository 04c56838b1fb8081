"""What the scaler of a block tells, where it lives, and how its state travels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchturbo
from tests.scaling.loops import OPTIONS, STEPS, ByHand, differences, flat, net, regression, sgd
from torchturbo import accelerate, turbo
from torchturbo.errors import OptionValueError


def fp16(**options: Any) -> turbo:
    return turbo("fast", autocast="fp16", **{**OPTIONS, **options})


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
    optimizer.zero_grad()
    loss = regression(model, number)
    loss.backward()
    optimizer.step()
    return loss


def told_by_hand(model: nn.Module) -> list[tuple[float, int, bool, int]]:
    """After each backward the scale and the growth tracker, after each step whether it ran, and how many did not."""
    by, optimizer, told = ByHand(**OPTIONS), sgd(model), []
    for number in range(STEPS):
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        scale, tracker, skipped = by.scaler.get_scale(), by.scaler.state_dict()["_growth_tracker"], by.skipped
        by.step(optimizer)
        by.update()
        told.append((scale, tracker, by.skipped == skipped, by.skipped))
    return told


def test_it_tells_what_became_of_each_step() -> None:
    model, told = net(), []
    expected = told_by_hand(copy.deepcopy(model))
    optimizer = sgd(model)
    with fp16() as active:
        scaler = active.scaler
        assert isinstance(scaler, torchturbo.Scaler)
        assert scaler.last_step_ran is None
        assert (scaler.get_scale(), scaler.growth_tracker, scaler.skipped_steps) == (2.0**16, 0, 0)
        for number in range(STEPS):
            optimizer.zero_grad()
            regression(model, number).backward()
            scale, tracker = scaler.get_scale(), scaler.growth_tracker
            optimizer.step()
            told.append((scale, tracker, scaler.last_step_ran, scaler.skipped_steps))
    assert told == expected
    assert [type(value) for value in told[0]] == [float, int, bool, int]
    assert expected[-1][-1] == 3


def test_defaults_are_torchs() -> None:
    with turbo("fast", autocast="fp16") as active:
        assert active.scaler is not None
        assert active.scaler.state_dict() == torch.amp.GradScaler("cpu").state_dict()


@pytest.mark.parametrize("options", [{"autocast": "bf16"}, {"autocast": None}, {}])
def test_without_fp16_there_is_none(options: dict[str, Any]) -> None:
    with turbo("fast", **options) as active:
        assert active.scaler is None


# --------------------------------------------------------------------------------------------------- where it lives


def test_it_lives_with_the_object() -> None:
    block, other = fp16(), fp16()
    model = net()
    optimizer = sgd(model)
    with block as active:
        scaler = active.scaler
        one_step(model, optimizer, 0)  # overflows
    assert scaler.get_scale() == 2.0**15
    with block as active:
        assert active.scaler is scaler
        with other as inner:
            assert inner.scaler is not scaler
    assert torchturbo.scaler_of(block) is scaler
    assert scaler.get_scale() == 2.0**15
    assert torchturbo.scaler_of(other).get_scale() == 2.0**16


def trains(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
    return one_step(model, optimizer, number)


class Trainer:
    @accelerate(profile="fast", autocast="fp16")
    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
        return one_step(model, optimizer, number)


def test_it_lives_with_a_decorated_function() -> None:
    decorated, again = (accelerate(trains, profile="fast", autocast="fp16", init_scale=2.0**14) for _ in range(2))
    model = net()
    optimizer = sgd(model)
    scales = []
    for number in (0, 1, 0):
        decorated(model, optimizer, number)
        scales.append(torchturbo.scaler_of(decorated).get_scale())
    assert scales == [2.0**13, 2.0**13, 2.0**12]
    assert torchturbo.scaler_of(again).skipped_steps == 0
    assert torchturbo.scaler_of(decorated).skipped_steps == 2


def test_it_lives_with_a_decorated_method() -> None:
    model = net()
    optimizer = sgd(model)
    before = torchturbo.scaler_of(Trainer.train).skipped_steps
    for number in (0, 1, 0):
        Trainer().train(model, optimizer, number)
    assert torchturbo.scaler_of(Trainer.train).skipped_steps == before + 2


def test_before_its_first_backward_it_tells_what_it_will_begin_with() -> None:
    options: dict[str, Any] = {"init_scale": 2.0**14, "growth_factor": 4.0, "growth_interval": 5}
    expected = torch.amp.GradScaler("cpu", **options).state_dict()
    block = turbo("fast", autocast="fp16", **options)
    decorated = accelerate(trains, profile="fast", autocast="fp16", **options)
    for target in (block, decorated):
        assert torchturbo.scaler_of(target).get_scale() == 2.0**14
        assert torchturbo.scaler_of(target).state_dict() == expected
        with turbo("fast", autocast="fp16"):
            assert torchturbo.scaler_of(target).state_dict() == expected


# ------------------------------------------------------------------------------------------------------------- state


def test_its_state_is_torchs() -> None:
    with fp16(growth_factor=4.0, backoff_factor=0.125, growth_interval=7) as active:
        state = active.scaler.state_dict()
    torchs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_factor=4.0, backoff_factor=0.125, growth_interval=7)
    assert state == torchs.state_dict()
    assert [type(value) for value in state.values()] == [type(value) for value in torchs.state_dict().values()]


def weights(model: nn.Module, optimizer: torch.optim.Optimizer, by: Any) -> dict[str, object]:
    return dict(flat({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": by.state_dict()}))


def continued(first_by_hand: bool, then_by_hand: bool) -> dict[str, object]:
    """Trains half of the way and saves, and in other objects loads and trains the other half."""
    torch.manual_seed(0)
    model = net()
    optimizer = sgd(model)
    saved: dict[str, Any] = {}
    for half, hand in enumerate((first_by_hand, then_by_hand)):
        if half:
            model, old = net(), optimizer
            model.load_state_dict(saved["model"])
            optimizer = sgd(model)
            optimizer.load_state_dict(old.state_dict())
        scaler: Any
        if hand:
            by = ByHand(init_scale=2.0**16, growth_interval=3)
            scaler = by.scaler
            if half:
                scaler.load_state_dict(saved["scaler"])
            for number in range(6 * half, 6 * half + 6):
                optimizer.zero_grad()
                with by.forward():
                    loss = regression(model, number)
                by.scale(loss).backward()
                by.step(optimizer)
                by.update()
        else:
            with fp16() as active:
                scaler = active.scaler
                if half:
                    scaler.load_state_dict(saved["scaler"])
                for number in range(6 * half, 6 * half + 6):
                    one_step(model, optimizer, number)
                if half == 0:
                    # In the loop, where the update of the last step is still to come.
                    saved = {"model": model.state_dict(), "scaler": scaler.state_dict()}
        if half == 0 and hand:
            saved = {"model": model.state_dict(), "scaler": scaler.state_dict()}
    return weights(model, optimizer, scaler)


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (False, False)])
def test_training_goes_on_with_the_state_of_the_other(first: bool, then: bool) -> None:
    assert not differences(continued(first, then), continued(True, True))


def test_a_loaded_state_beats_the_options() -> None:
    block = fp16(init_scale=2.0**4)
    torchs = torch.amp.GradScaler("cpu", init_scale=2.0**9, growth_interval=11)
    torchturbo.scaler_of(block).load_state_dict(torchs.state_dict())
    with block as active:
        assert active.scaler.get_scale() == 2.0**9
        assert active.scaler.state_dict() == torchs.state_dict()


# ----------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "option",
    [
        {"init_scale": 3.0},
        {"init_scale": 65535.0},
        {"init_scale": 0.0},
        {"init_scale": -2.0},
        {"init_scale": float("inf")},
        {"init_scale": float("nan")},
        {"growth_factor": 1.5},
        {"growth_factor": 0.5},
        {"backoff_factor": 0.3},
        {"backoff_factor": 2.0},
        {"growth_interval": -1},
        {"growth_interval": 2.5},
    ],
    ids=str,
)
def test_what_would_not_be_exact_is_refused(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(OptionValueError, match=name):
        turbo("fast", autocast="fp16", **option)
    with pytest.raises(OptionValueError, match=name):
        accelerate(trains, profile="fast", autocast="fp16", **option)


def test_a_scale_that_could_grow_for_ever_stays_finite() -> None:
    model = net()
    optimizer = sgd(model)
    with fp16(init_scale=2.0**126, growth_interval=1) as active:
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.ones(2, 16)).float().sum() * 0).backward()
            optimizer.step()
    assert active.scaler.get_scale() == 2.0**127
    assert active.scaler.skipped_steps == 0


def test_a_skipped_first_step_brings_no_warning_of_the_scheduler() -> None:
    model = net()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with fp16() as active:
        for number in range(3):  # the first overflows, and warnings are errors here
            one_step(model, optimizer, number)
            scheduler.step()
            assert active.scaler.skipped_steps == 1
    assert scheduler.last_epoch == 3


def test_a_scheduler_before_any_step_brings_its_warning() -> None:
    model = net()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with fp16(), pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
