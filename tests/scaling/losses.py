"""Loops with more than one loss, model, optimizer or backward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.scaling.loops import QUIET, By, Loop, adam, batch, cacheless, loop, loudness, net, regression, sgd


def adversaries() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.Optimizer]:
    generator, critic = net(outputs=16), net()
    return generator, critic, adam(generator), sgd(critic, lr=0.02 / QUIET)


def judged(logits: Tensor, real: bool, step: int) -> Tensor:
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target) * loudness(step)


@cacheless
def gan(by: By) -> Loop:
    """The generator's backward leaves gradients in the critic, also infinite ones, which are not for its next step."""
    generator, critic, of_generator, of_critic = adversaries()

    def step(number: int) -> object:
        real, _ = batch(number)
        noise, _ = batch(number, 1)
        of_critic.zero_grad()
        with by.forward():
            fake = generator(noise)
            loss_of_critic = judged(critic(real), True, 3) + judged(critic(fake.detach()), False, 3)
        by.scale(loss_of_critic).backward()
        by.step(of_critic)
        by.update()
        of_generator.zero_grad()
        with by.forward():
            loss_of_generator = judged(critic(fake), True, number)
        by.scale(loss_of_generator).backward()
        by.step(of_generator)
        by.update()
        return loss_of_critic, loss_of_generator

    return Loop(step, [generator, critic], [of_generator, of_critic], gradients=False)


def together(by: By, overflowing: str, apart: bool) -> Loop:
    """One forward pass for both losses, whose gradients are kept apart by `inputs`, or come together in the critic."""
    generator, critic, of_generator, of_critic = adversaries()

    def step(number: int) -> object:
        real, _ = batch(number)
        noise, _ = batch(number, 1)
        of_critic.zero_grad()
        with by.forward():
            judgement = critic(generator(noise))
            of_fakes = judged(judgement, False, number if overflowing == "critic" else 3)
            loss_of_critic = judged(critic(real), True, 3) + of_fakes
            loss_of_generator = judged(judgement, True, number if overflowing == "generator" else 3)
        inputs = list(critic.parameters()) if apart else None
        by.scale(loss_of_critic).backward(retain_graph=True, inputs=inputs)
        of_generator.zero_grad()
        by.scale(loss_of_generator).backward(inputs=list(generator.parameters()) if apart else None)
        by.unscale(of_critic)
        norm = nn.utils.clip_grad_norm_(critic.parameters(), QUIET)
        by.step(of_critic)
        by.step(of_generator)
        by.update()
        return loss_of_critic, loss_of_generator, norm

    return Loop(step, [generator, critic], [of_generator, of_critic])


@cacheless
def gan_with_retained_graph(by: By) -> Loop:
    return together(by, "critic", apart=False)


@cacheless
def gan_with_retained_graph_and_a_loud_generator(by: By) -> Loop:
    return together(by, "generator", apart=False)


@cacheless
def gan_with_inputs(by: By) -> Loop:
    """The critic overflows alone."""
    return together(by, "critic", apart=True)


@cacheless
def gan_with_inputs_and_a_loud_generator(by: By) -> Loop:
    return together(by, "generator", apart=True)


@loop
def one_loss_two_optimizers(by: By) -> Loop:
    body, head = net(outputs=8), nn.Linear(8, 1)
    of_body, of_head = adam(body), sgd(head)

    def step(number: int) -> object:
        of_body.zero_grad()
        of_head.zero_grad()
        with by.forward():
            loss = regression(lambda x: head(body(x).relu()), number)
        by.scale(loss).backward()
        by.step(of_body)
        by.step(of_head)
        by.update()
        return loss

    return Loop(step, [body, head], [of_body, of_head])


class Louder(torch.autograd.Function):
    """Multiplies what comes back, and nothing that goes forward."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


@loop
def one_of_two_optimizers_overflows(by: By) -> Loop:
    """One step runs, the other does not, and the scale backs off for both."""
    body, head = net(outputs=8), nn.Linear(8, 1)
    of_body, of_head = adam(body), sgd(head)

    def step(number: int) -> object:
        x, y = batch(number)
        of_body.zero_grad()
        of_head.zero_grad()
        with by.forward():
            hidden = Louder.apply(body(x).relu(), loudness(number) / QUIET)
            loss = F.mse_loss(head(hidden), y) * QUIET
        by.scale(loss).backward()
        by.unscale(of_head)
        nn.utils.clip_grad_norm_(head.parameters(), QUIET)
        by.step(of_head)
        by.step(of_body)
        by.update()
        return loss

    return Loop(step, [body, head], [of_body, of_head])


@loop
def optimizers_that_take_turns(by: By) -> Loop:
    """Only one of two steps in an iteration, and the other one's gradients are left to lie."""
    body, head = net(outputs=8), nn.Linear(8, 1)
    optimizers = adam(body), sgd(head)

    def step(number: int) -> object:
        optimizer = optimizers[number % 2]
        optimizer.zero_grad()
        with by.forward():
            loss = regression(lambda x: head(body(x).relu()), number)
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        for parameter in (*body.parameters(), *head.parameters()):
            if parameter.grad is not None and number % 3 == 2:
                parameter.grad = None
        return loss

    return Loop(step, [body, head], optimizers)


@loop
def an_overflow_that_was_cleared(by: By) -> Loop:
    """A model takes no part for a while; its gradients are zeros then, and its optimizer goes on with its momentum."""
    body, head = net(outputs=8), nn.Linear(8, 1)
    of_body, of_head = sgd(body, lr=0.01 / QUIET), sgd(head, lr=0.01 / QUIET)

    def step(number: int) -> object:
        of_body.zero_grad(set_to_none=False)
        of_head.zero_grad(set_to_none=False)
        body.requires_grad_(number not in (1, 6))
        with by.forward():
            loss = regression(lambda x: head(body(x).relu()), number)
        by.scale(loss).backward()
        if number not in (0, 5):
            by.step(of_body)
        by.step(of_head)
        by.update()
        return loss

    return Loop(step, [body, head], [of_body, of_head])


@loop
def two_models(by: By) -> Loop:
    """Each with its own everything, in one iteration."""
    models = net(), net(width=24)
    optimizers = adam(models[0]), sgd(models[1])

    def step(number: int) -> object:
        losses = []
        for model, optimizer, part in zip(models, optimizers, (0, 1), strict=True):
            optimizer.zero_grad()
            with by.forward():
                loss = regression(model, number - 2 * part, part)
            by.scale(loss).backward()
            by.step(optimizer)
            by.update()
            losses.append(loss)
        return losses

    return Loop(step, models, optimizers)
