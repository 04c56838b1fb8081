"""Loops with one model, one loss and one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.scaling.loops import QUIET, By, Loop, adam, batch, loop, net, regression, sgd

Between = Callable[[nn.Module, By, torch.optim.Optimizer, int], object]
"""What stands between backward and the step."""


def ordinary(
    by: By,
    between: Between = lambda model, by, optimizer, step: None,
    make: Callable[..., torch.optim.Optimizer] = sgd,
    model: nn.Module | None = None,
    after: Callable[[nn.Module, int], object] = lambda model, step: None,
    zero: Callable[[torch.optim.Optimizer], None] = lambda optimizer: optimizer.zero_grad(),
) -> Loop:
    trained = net() if model is None else model
    optimizer = make(trained)

    def step(number: int) -> object:
        zero(optimizer)
        with by.forward():
            loss = regression(trained, number)
        by.scale(loss).backward()
        noticed = between(trained, by, optimizer, number)
        by.step(optimizer)
        by.update()
        return loss, noticed, after(trained, number)

    return Loop(step, [trained], [optimizer])


@loop
def basic(by: By) -> Loop:
    return ordinary(by)


@loop
def basic_adam(by: By) -> Loop:
    return ordinary(by, make=adam)


@loop
def buffers(by: By) -> Loop:
    return ordinary(by, model=nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1)))


@loop
def clip_by_norm(by: By) -> Loop:
    def clip(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        by.unscale(optimizer)
        return clip_grad_norm_(model.parameters(), 0.1 * QUIET)

    return ordinary(by, clip)


@loop
def clip_by_value(by: By) -> Loop:
    """Which turns an infinity into a number, after it was found."""

    def clip(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> None:
        by.unscale(optimizer)
        clip_grad_value_(model.parameters(), 0.01 * QUIET)

    return ordinary(by, clip)


@loop
def clip_of_ones_own(by: By) -> Loop:
    def clip(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        by.unscale(optimizer)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad * (0.1 * QUIET / norm).clamp(max=1)
        return norm

    return ordinary(by, clip)


@loop
def surgery_with_products(by: By) -> Loop:
    """Products between gradients, which autocast would make half ones."""

    def project(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        by.unscale(optimizer)
        gradient = model[2].weight.grad
        gradient.copy_(gradient - 0.1 * gradient @ gradient.T @ gradient / gradient.norm() ** 2)
        return gradient.mT @ gradient

    return ordinary(by, project)


@loop
def infinity_after_backward(by: By) -> Loop:
    """As an all-reduce brings one from elsewhere."""

    def reduce(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step in (2, 8):
            model[0].bias.grad[3] = float("inf")

    return ordinary(by, reduce)


@loop
def logged_gradients(by: By) -> Loop:
    def log(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> list[Tensor]:
        by.unscale(optimizer)
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    return ordinary(by, log)


@loop
def gradients_set_to_zero(by: By) -> Loop:
    return ordinary(by, zero=lambda optimizer: optimizer.zero_grad(set_to_none=False))


@loop
def gradients_deleted_by_hand(by: By) -> Loop:
    def zero(optimizer: torch.optim.Optimizer) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = None

    return ordinary(by, zero=zero)


@loop
def gradients_never_cleared(by: By) -> Loop:
    """Every step adds to what was there, and after the first overflow none runs any more, until they are cleared."""
    cleared = [3, 9]

    def after(model: nn.Module, step: int) -> None:
        if step in cleared:
            model.zero_grad()

    def unscaled(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> None:
        by.unscale(optimizer)

    # By hand, gradients that were unscaled are added to scaled ones; the true sum is that of gradients of one scale.
    made = ordinary(by, unscaled, zero=lambda optimizer: rescale(by, optimizer), after=after)
    return made


def rescale(by: By, optimizer: torch.optim.Optimizer) -> None:
    for parameter in optimizer.param_groups[0]["params"]:
        if parameter.grad is not None:
            parameter.grad = by.scale(parameter.grad)


@loop
def moving_average(by: By) -> Loop:
    model = net()
    average = deepcopy(model).requires_grad_(False)

    def follow(model: nn.Module, step: int) -> Tensor:
        torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 0.3)
        with torch.no_grad(), by.forward():
            result: Tensor = average(batch(step, 1)[0])
        return result

    made = ordinary(by, model=model, after=follow)
    made.models = [model, average]
    return made


@loop
def frozen_midway(by: By) -> Loop:
    def freeze(model: nn.Module, step: int) -> None:
        if step == 3:
            model[0].requires_grad_(False)
        if step == 8:
            model.requires_grad_(True)
            model[2].requires_grad_(False)

    return ordinary(by, after=freeze)


@loop
def unused_parameters(by: By) -> Loop:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.sometimes = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 1)
            self.last, self.calls = nn.Linear(16, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            hidden = self.used(x).tanh()
            result: Tensor = self.last(hidden) + (self.sometimes(hidden) if self.calls % 3 else 0)
            return result

    return ordinary(by, model=Partly())


@loop
def accumulation(by: By) -> Loop:
    model = net()
    optimizer = sgd(model)

    def step(number: int) -> object:
        losses = []
        for part in range(3):
            with by.forward():
                loss = regression(model, number if part == 1 else 3, part) / 3
            by.scale(loss).backward()
            losses.append(loss)
        by.unscale(optimizer)
        norm = clip_grad_norm_(model.parameters(), 0.3 * QUIET)
        by.step(optimizer)
        by.update()
        optimizer.zero_grad()
        return losses, norm

    return Loop(step, [model], [optimizer])


@loop
def accumulation_over_iterations(by: By) -> Loop:
    """With nothing between backward and the next one, and an evaluation in between."""
    model = net()
    optimizer = adam(model)

    def step(number: int) -> object:
        with by.forward():
            loss = regression(model, number, 7) / 4
        by.scale(loss).backward()
        with torch.no_grad(), by.forward():
            seen = model(batch(number)[0])
        if number % 4 == 3:
            by.step(optimizer)
            by.update()
            optimizer.zero_grad()
        return loss, seen

    return Loop(step, [model], [optimizer])


@loop
def scheduled(by: By) -> Loop:
    model = net()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        # By hand the first step, when it is skipped, brings a warning that is false; here it is not compared.
        optimizer._opt_called = True
        scheduler.step()
        return loss, scheduler.get_last_lr()

    return Loop(step, [model], [optimizer])
