"""Loops that keep or differentiate gradients, or watch them with hooks."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call

from tests.scaling.loops import QUIET, By, Loop, adam, batch, cacheless, loop, loudness, net, regression, sgd


@loop
def kept_gradients_of_activations(by: By) -> Loop:
    model = net()
    optimizer = sgd(model)

    def step(number: int) -> object:
        x, y = batch(number)
        optimizer.zero_grad()
        with by.forward():
            hidden = model[:2](x)
            hidden.retain_grad()
            output = model[2:](hidden).float()
            output.retain_grad()
            loss = F.mse_loss(output, y) * loudness(number)
        by.scale(loss).backward()
        seen = by.true([hidden.grad, output.grad])
        by.step(optimizer)
        by.update()
        return loss, seen

    return Loop(step, [model], [optimizer])


@loop
def gradients_of_inputs(by: By) -> Loop:
    """A leaf that no optimizer has, as in adversarial training."""
    model = net()
    optimizer = sgd(model)

    def step(number: int) -> object:
        x, y = batch(number)
        x.requires_grad_()
        optimizer.zero_grad()
        with by.forward():
            loss = F.mse_loss(model(x), y) * loudness(number)
        by.scale(loss).backward()
        (seen,) = by.true([x.grad])
        by.step(optimizer)
        by.update()
        return loss, seen

    return Loop(step, [model], [optimizer])


@cacheless
def gradient_penalty(by: By) -> Loop:
    """Torch's documented recipe, through a function that was imported before."""
    model = net()
    optimizer = adam(model)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        gradients = by.true(grad(by.scale(loss), list(model.parameters()), create_graph=True))
        with by.forward():
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            loss = loss + norm
        by.scale(loss).backward()
        by.unscale(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5 * QUIET)
        by.step(optimizer)
        by.update()
        return loss, norm

    return Loop(step, [model], [optimizer])


@cacheless
def penalty_on_inputs(by: By) -> Loop:
    """As critics have it: of summed outputs, with respect to the inputs."""
    critic = net()
    optimizer = adam(critic)

    def step(number: int) -> object:
        x, y = batch(number)
        x.requires_grad_()
        optimizer.zero_grad()
        with by.forward():
            output = critic(x).float()
        # A smaller loss, or the gradient with respect to half activations overflows for all scales here.
        (gradient,) = by.true(torch.autograd.grad(by.scale(output.mean() * QUIET), x, create_graph=True))
        with by.forward():
            loss = F.mse_loss(output, y) * loudness(number) + QUIET * (gradient.norm(dim=1) / QUIET - 1).square().mean()
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss, gradient

    return Loop(step, [critic], [optimizer])


@cacheless
def hooks_in_a_gradient_penalty(by: By) -> Loop:
    """`autograd.grad` calls the hooks of the leaves that it is asked for."""
    model = net()
    optimizer = adam(model)
    seen: list[Tensor] = []
    for parameter in model.parameters():
        parameter.register_hook(by.hook(lambda gradient: seen.append(gradient.detach().norm()) or gradient * 2))

    def step(number: int) -> object:
        seen.clear()
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        gradients = by.true(grad(by.scale(loss), list(model.parameters()), create_graph=True))
        penalty = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        by.scale(loss + penalty).backward()
        by.step(optimizer)
        by.update()
        return loss, penalty, list(seen)

    return Loop(step, [model], [optimizer])


@cacheless
def differentiable_gradients(by: By) -> Loop:
    """`backward(create_graph=True)`, whose `.grad` goes into the second loss."""
    model = net()
    optimizer = adam(model)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward(create_graph=True)
        gradients = by.true([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
        penalty = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        by.scale(penalty).backward()
        by.step(optimizer)
        by.update()
        optimizer.zero_grad()
        return loss, penalty

    return Loop(step, [model], [optimizer])


@loop
def plain_gradients_beside(by: By) -> Loop:
    """`autograd.grad` of some parameters, without a graph, is its caller's own."""
    model = net()
    optimizer = sgd(model)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        (seen,) = grad(loss, [model[2].weight], retain_graph=True)
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss, seen

    return Loop(step, [model], [optimizer])


@loop
def gradients_asked_for(by: By) -> Loop:
    """No `backward`: the gradients of all parameters are asked for, and put where the optimizer looks."""
    model = net()
    optimizer = adam(model)

    def step(number: int) -> object:
        with by.forward():
            loss = regression(model, number)
        parameters = list(model.parameters())
        for parameter, gradient in zip(parameters, grad(by.scale(loss), parameters), strict=True):
            parameter.grad = gradient
        by.unscale(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, 0.5 * QUIET)
        by.step(optimizer)
        by.update()
        return loss, norm

    return Loop(step, [model], [optimizer])


# -------------------------------------------------------------------------------------------------------- torch.func


@loop
def functional_calls(by: By) -> Loop:
    model = net()
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(list(weights.values()), lr=0.1 / QUIET)

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(partial(functional_call, model, weights), number)
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss

    return Loop(step, [model], [optimizer], lambda: weights)


# ------------------------------------------------------------------------------------------------------------- hooks


@loop
def nonlinear_hooks(by: By) -> Loop:
    model = net()
    optimizer = sgd(model)
    for parameter in model.parameters():
        parameter.register_hook(by.hook(lambda gradient: gradient * gradient.norm() / QUIET * 4))

    def step(number: int) -> object:
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss

    return Loop(step, [model], [optimizer])


@loop
def hooks_registered_and_removed(by: By) -> Loop:
    model = net()
    optimizer = sgd(model)
    seen: list[Tensor] = []

    def step(number: int) -> object:
        seen.clear()
        optimizer.zero_grad()
        parameter = next(model.parameters())
        first = parameter.register_hook(by.hook(lambda gradient: gradient.clamp(-QUIET, QUIET) + gradient))
        second = parameter.register_hook(by.hook(lambda gradient: seen.append(gradient) or gradient * 3))
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        first.remove()
        second.remove()
        by.step(optimizer)
        by.update()
        return loss, list(seen)

    return Loop(step, [model], [optimizer])


@loop
def hooks_after_accumulation(by: By) -> Loop:
    """They see the whole gradient of what was accumulated, and may write it."""
    model = net()
    optimizer = sgd(model)
    seen: list[Tensor] = []

    def halve(parameter: Tensor) -> None:
        (gradient,) = by.true([parameter.grad])
        seen.append(gradient.norm())
        parameter.grad.copy_(by.scale(gradient * 0.5))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(halve)

    def step(number: int) -> object:
        seen.clear()
        optimizer.zero_grad()
        for part in range(2):
            with by.forward():
                loss = regression(model, number, part)
            by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss, list(seen)

    return Loop(step, [model], [optimizer])


@loop
def step_in_backward(by: By) -> Loop:
    """Each parameter steps as soon as it has its gradient, if that is finite."""
    model = net()
    optimizers = {parameter: torch.optim.Adam([parameter], lr=0.01, eps=1e-12) for parameter in model.parameters()}

    def step_of(parameter: Tensor) -> None:
        by.step(optimizers[parameter])
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_of)

    def step(number: int) -> object:
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.update()
        return loss

    return Loop(step, [model], list(optimizers.values()))
