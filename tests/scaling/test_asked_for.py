"""Gradients that `torch.autograd.grad` gives: scaled where a step can be taken with them, else refused there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call

from tests.scaling.loops import OPTIONS, ByHand, batch, net, regression
from torchturbo import accelerate, scaler_of, turbo
from torchturbo.errors import ScalingError, ScalingWarning

QUIET = 2.0**-20
"""fp16 loses gradients of such a loss without scaling."""


def tiny(model: Callable[[Tensor], Tensor]) -> Tensor:
    x, y = batch(1)
    return nn.functional.mse_loss(model(x), y) * QUIET


def right(model: nn.Module) -> list[Tensor]:
    by = ByHand(**OPTIONS)
    with by.forward():
        loss = tiny(model)
    return by.true(torch.autograd.grad(by.scale(loss), list(model.parameters())))


def alike(found: object, expected: list[Tensor]) -> bool:
    assert isinstance(found, tuple | list)
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_of_all_parameters_however_they_are_named() -> None:
    model = net()
    parameters = list(model.parameters())
    expected = right(model)
    with turbo("fast", autocast="fp16", **OPTIONS):
        assert alike(torch.autograd.grad(tiny(model), parameters), expected)
        assert alike(torch.autograd.grad(tiny(model), [get_gradient_edge(each) for each in parameters]), expected)
        x = batch(1)[0].requires_grad_()
        assert alike(torch.autograd.grad(tiny(lambda given: model(x)), [x, *parameters])[1:], expected)
        assert alike(torch.autograd.grad(tiny(model), [*parameters, parameters[0]])[:-1], expected)


def test_a_hook_sees_the_true_gradient_of_what_is_asked_for_twice() -> None:
    model = net()
    expected = right(model)[0]
    weight, seen = model[0].weight, list[Tensor]()
    weight.register_hook(seen.append)
    with turbo("fast", autocast="fp16", **OPTIONS):
        found = torch.autograd.grad(tiny(model), [weight, *model.parameters()])
        edge = torch.autograd.grad(tiny(model), [get_gradient_edge(each) for each in model.parameters()])
    assert all(torch.equal(each, expected) for each in (found[0], found[1], edge[0], *seen))


def test_several_at_once() -> None:
    model = net()
    with turbo("fast", autocast="fp16", **OPTIONS):
        outputs = model(batch(1)[0]).float().flatten()
        found = torch.autograd.grad(
            outputs, list(model.parameters()), torch.eye(len(outputs)) * QUIET, is_grads_batched=True, retain_graph=True
        )
        assert [each.shape[1:] for each in found] == [each.shape for each in model.parameters()]
        assert all(each.isfinite().all() for each in found)


# --------------------------------------------------------------------------------------------------- what is refused


def of_plain_tensors() -> None:
    model = net()
    weights = {name: each.detach().requires_grad_() for name, each in model.named_parameters()}
    optimizer = torch.optim.SGD(list(weights.values()), lr=0.1)
    found = torch.autograd.grad(tiny(lambda x: functional_call(model, weights, x)), list(weights.values()))
    for each, gradient in zip(weights.values(), found, strict=True):
        each.grad = gradient
    optimizer.step()


def of_two_groups() -> None:
    model = net()
    parameters = list(model.parameters())
    loss = tiny(model)
    first = torch.autograd.grad(loss, parameters[:2], retain_graph=True)
    second = torch.autograd.grad(loss, parameters[2:])
    for each, gradient in zip(parameters, (*first, *second), strict=True):
        each.grad = gradient
    torch.optim.SGD(parameters[:2], lr=0.1).step()


@pytest.mark.parametrize("train", [of_plain_tensors, of_two_groups])
def test_a_step_with_what_was_not_scaled_is_refused(train: Callable[[], None]) -> None:
    with turbo("fast", autocast="fp16"), pytest.raises(ScalingError, match=r"torch\.autograd\.grad"):
        train()


# ------------------------------------------------------------------------------------------------- what overflows


def asked_for(model: nn.Module, step: int) -> None:
    parameters = list(model.parameters())
    for each, gradient in zip(parameters, torch.autograd.grad(regression(model, step), parameters), strict=True):
        each.grad = gradient


def moved(model: nn.Module, step: int) -> None:
    """Of a copy that has run backward, as first-order meta-learning has it."""
    weights = {name: each.detach().requires_grad_() for name, each in model.named_parameters()}
    regression(lambda x: functional_call(model, weights, x), step).backward()
    for name, each in model.named_parameters():
        each.grad = weights[name].grad


def written_to(model: nn.Module, step: int) -> None:
    """After backward, in ways that leave no trace: as reductions between processes do."""
    regression(model, 1).backward()
    model[0].weight.grad.data.fill_(torch.inf)


@pytest.mark.parametrize(
    ("train", "clips"), [(asked_for, False), (asked_for, True), (moved, False), (moved, True), (written_to, False)]
)
def test_an_overflow_is_skipped(train: Callable[[nn.Module, int], None], clips: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [each.detach().clone() for each in model.parameters()]
    with turbo("fast", autocast="fp16", init_scale=2.0**16 if train is written_to else 2.0**60) as active:
        train(model, 0)
        if clips:
            nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()
        assert active.scaler is not None
        assert active.scaler.last_step_ran is False
    assert alike(list(model.parameters()), before)


def test_the_scaler_that_has_scaled_hears_of_the_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inner = accelerate(asked_for, profile="fast", autocast="fp16", **OPTIONS)
    with turbo("fast", autocast="fp16") as active:
        for step in range(6):
            inner(model, step)
            optimizer.step()
        outer, own = active.scaler, scaler_of(inner)
        assert outer is not None
        assert own is not None
        assert (outer.steps, outer.skipped_steps) == (0, 0)
        assert own.steps + own.skipped_steps == 6


def test_a_step_outside_is_told() -> None:
    model = net()
    block = turbo("fast", autocast="fp16", init_scale=2.0**60)
    block.__enter__()
    asked_for(model, 0)
    with pytest.warns(ScalingWarning, match="a step outside of it"):
        block.__exit__(None, None, None)
