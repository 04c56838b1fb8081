"""Loops in which something raises, is caught, and training goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.scaling.inside import Around
from tests.scaling.loops import By, Loop, adam, loop, net, regression, sgd

FAILS = (1, 4, 7)


class NotToday(Exception):
    """What they raise."""


class Trap(torch.autograd.Function):
    """Raises in backward when it is armed."""

    armed = False

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if Trap.armed:
            raise NotToday
        return gradient


def caught(by: By, model: nn.Module, arm: Callable[[bool], None], clear: bool = True) -> Loop:
    """What a failed backward pass has left is read, and the step is left out."""
    optimizer = sgd(model)

    def step(number: int) -> object:
        if clear:
            optimizer.zero_grad()
        arm(number in FAILS)
        with contextlib.suppress(NotToday):
            with by.forward():
                loss = regression(model, number)
            by.scale(loss).backward()
            by.unscale(optimizer)
            by.step(optimizer)
            by.update()
            optimizer.zero_grad()
            return loss
        arm(False)
        partial = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return by.true(partial) if partial else None

    return Loop(step, [model], [optimizer])


def arm_trap(armed: bool) -> None:
    Trap.armed = armed


@loop
def backward_raises(by: By) -> Loop:
    return caught(by, Around(Trap.apply), arm_trap)


@loop
def hook_raises(by: By) -> Loop:
    model, armed = net(), [False]

    def hook(gradient: Tensor) -> None:
        if armed[0]:
            raise NotToday

    model[2].weight.register_hook(hook)
    return caught(by, model, lambda now: armed.__setitem__(0, now))


@loop
def hook_after_accumulation_raises(by: By) -> Loop:
    model, armed = net(), [False]

    def hook(parameter: Tensor) -> None:
        if armed[0]:
            raise NotToday

    model[0].weight.register_post_accumulate_grad_hook(hook)
    return caught(by, model, lambda now: armed.__setitem__(0, now))


@loop
def forward_raises(by: By) -> Loop:
    armed = [False]

    def maybe(x: Tensor) -> Tensor:
        if armed[0]:
            raise NotToday
        return x

    return caught(by, Around(maybe), lambda now: armed.__setitem__(0, now))


@loop
def backward_raises_and_is_tried_again(by: By) -> Loop:
    """Without clearing: what the first pass has left is added to."""
    model = Around(Trap.apply)
    optimizer = adam(model)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        arm_trap(number in FAILS)
        with contextlib.suppress(NotToday):
            by.scale(loss).backward(retain_graph=True)
        arm_trap(False)
        if number in FAILS:
            by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss

    return Loop(step, [model], [optimizer])


@loop
def graph_is_used_twice(by: By) -> Loop:
    """Torch's own error, from within the engine."""
    model = net()
    optimizer = adam(model)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        with contextlib.suppress(RuntimeError):
            by.scale(loss).backward()
        by.unscale(optimizer)
        by.step(optimizer)
        by.update()
        return loss

    return Loop(step, [model], [optimizer])
