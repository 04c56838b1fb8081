"""Loops that go into backward in other ways than `loss.backward()`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import backward

from tests.scaling.loops import QUIET, By, Loop, batch, loop, loudness, net, sgd


def heads(by: By, backwards: str) -> Loop:
    body, first, second = net(outputs=8), nn.Linear(8, 1), nn.Linear(8, 1)
    optimizer = sgd(body, first, second, lr=0.03 / QUIET)

    def step(number: int) -> object:
        x, y = batch(number)
        optimizer.zero_grad()
        with by.forward():
            hidden = body(x)
            one = F.mse_loss(first(hidden), y) * QUIET
            two = F.l1_loss(second(hidden), y) * loudness(number)
        match backwards:
            case "sum":
                by.scale(one + two).backward()
            case "twice":
                by.scale(one).backward(retain_graph=True)
                by.scale(two).backward()
            case "twice, loud one first":
                by.scale(two).backward(retain_graph=True)
                by.scale(one).backward()
            case "roots":
                torch.autograd.backward([by.scale(one), by.scale(two)])
            case "bound":
                backward((by.scale(two), by.scale(one)), grad_tensors=(None, torch.tensor(0.5)))
        by.unscale(optimizer)
        norm = nn.utils.clip_grad_norm_(body.parameters(), QUIET)
        by.step(optimizer)
        by.update()
        return one, two, norm

    return Loop(step, [body, first, second], [optimizer])


@loop
def sum_of_two_losses(by: By) -> Loop:
    return heads(by, "sum")


@loop
def two_backwards(by: By) -> Loop:
    return heads(by, "twice")


@loop
def two_backwards_of_which_the_first_overflows(by: By) -> Loop:
    return heads(by, "twice, loud one first")


@loop
def several_roots(by: By) -> Loop:
    return heads(by, "roots")


@loop
def backward_that_was_imported_before(by: By) -> Loop:
    return heads(by, "bound")


def given_gradient(by: By, half: bool) -> Loop:
    model = net()
    optimizer = sgd(model)

    def step(number: int) -> object:
        x, y = batch(number)
        optimizer.zero_grad()
        with by.forward():
            output = model(x)
            output = output if half else output.float()
        gradient = (output.detach().float() - y) * loudness(number)
        by.scale(output).backward(gradient=gradient.to(output.dtype))
        by.step(optimizer)
        by.update()
        return output

    return Loop(step, [model], [optimizer])


@loop
def backward_of_a_gradient(by: By) -> Loop:
    return given_gradient(by, half=False)


@loop
def backward_of_a_half_gradient(by: By) -> Loop:
    return given_gradient(by, half=True)


def of_inputs(by: By, leaves: bool) -> Loop:
    model = net()
    optimizer = sgd(model, lr=0.03 / QUIET)
    chosen = list(model.parameters())[2:]

    def step(number: int) -> object:
        x, y = batch(number)
        optimizer.zero_grad()
        with by.forward():
            hidden = model[:2](x)
            loss = F.mse_loss(model[2:](hidden), y) * loudness(number)
        inputs = chosen if leaves else [hidden, *chosen]
        by.scale(loss).backward(inputs=inputs)
        seen = [] if leaves else by.true([hidden.grad])
        by.step(optimizer)
        by.update()
        return loss, seen

    return Loop(step, [model], [optimizer])


@loop
def inputs_of_leaves(by: By) -> Loop:
    return of_inputs(by, leaves=True)


@loop
def inputs_with_an_activation(by: By) -> Loop:
    return of_inputs(by, leaves=False)
