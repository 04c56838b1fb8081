"""Loops that guard themselves against gradients that are not finite: the scale moves as it does by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.scaling.loops import batch, net
from torchturbo import Scaler, accelerate, scaler_of, turbo

STEPS, INITIAL = 30, 2.0**24

Guard = Callable[[list[Tensor], torch.optim.Optimizer], bool]
"""What a loop does with gradients before it steps; returns whether it goes on to the step."""


def drops_the_batch(gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> bool:
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        return True
    optimizer.zero_grad()
    return False


def zeroes_them(gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> bool:
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        optimizer.zero_grad(set_to_none=False)
    return True


def forgets_them(gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> bool:
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        optimizer.zero_grad()
    return True


def replaces_what_is_not_finite(gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> bool:
    for gradient in gradients:
        gradient.nan_to_num_(0, 0, 0)
    return True


def gradients_of(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def by_hand(guard: Guard) -> tuple[nn.Module, float]:
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=4)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if guard(gradients_of(model), optimizer):
            scaler.step(optimizer)
        scaler.update()
    return model, scaler.get_scale()


def untouched(guard: Guard, accumulate: int = 1) -> tuple[nn.Module, Scaler]:
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with turbo("fast", autocast="fp16", init_scale=INITIAL, growth_interval=4, accumulate=accumulate) as active:
        for step in range(STEPS):
            x, y = batch(step)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            if guard(gradients_of(model), optimizer):
                optimizer.step()
        active.flush()
    assert active.scaler is not None
    return model, active.scaler


@pytest.mark.parametrize("guard", [zeroes_them, forgets_them, replaces_what_is_not_finite])
def test_a_loop_that_guards_itself_is_the_one_written_by_hand(guard: Guard) -> None:
    (model, scaler), (expected, scale) = untouched(guard), by_hand(guard)
    # By hand the scale has moved after the last batch; here it moves when the next backward begins.
    assert scale in (scaler.get_scale(), scaler.get_scale() / 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loop_that_drops_the_batch_goes_on_learning(accumulate: int) -> None:
    """By hand it moves the scale at each; here at the second in a row, since one alone may be another optimizer's."""
    _, scaler = untouched(drops_the_batch, accumulate)
    assert scaler.get_scale() < INITIAL
    assert scaler.steps > STEPS // 3 // accumulate


def test_the_scaler_that_has_scaled_hears_of_the_step() -> None:
    """Of a function with a block of its own, whose caller steps in another."""
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    @accelerate(profile="fast", autocast="fp16", init_scale=INITIAL, growth_interval=4)
    def gradients(step: int) -> None:
        x, y = batch(step)
        nn.functional.mse_loss(model(x), y).backward()

    with turbo("fast", autocast="fp16") as outer:
        for step in range(STEPS):
            optimizer.zero_grad()
            gradients(step)
            optimizer.step()
    inner = scaler_of(gradients)
    assert inner is not None
    assert outer.scaler is not None
    assert (inner.steps + inner.skipped_steps, outer.scaler.steps) == (STEPS, 0)
    assert inner.skipped_steps
    assert inner.get_scale() < INITIAL
