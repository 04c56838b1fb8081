"""Where backward or the step happens outside of the block, nothing goes wrong without a word."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.scaling.loops import ByHand, batch, net, regression
from torchturbo import accelerate, turbo
from torchturbo.errors import ScalingError, ScalingWarning


@contextlib.contextmanager
def says_so(told: list[str]) -> Iterator[None]:
    """Errors and warnings of this package are words; others are errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except ScalingError as error:
            told.append(str(error))
    told.extend(str(warning.message) for warning in caught if issubclass(warning.category, ScalingWarning))


@pytest.mark.parametrize("decorated", [True, False])
def test_an_overflow_that_a_step_outside_would_not_skip_is_told(decorated: bool) -> None:
    """Of a function that computes the loss and its gradients, and leaves the step to its caller."""
    model = net()

    def loss_and_backward(step: int) -> Tensor:
        loss = regression(model, step)
        loss.backward()
        return loss

    told: list[str] = []
    with says_so(told):
        if decorated:
            accelerate(loss_and_backward, profile="fast", autocast="fp16", init_scale=2.0**40)(1)
        else:
            with turbo("fast", autocast="fp16", init_scale=2.0**40):
                loss_and_backward(1)
    assert "a step outside of it is not skipped" in " ".join(told)


def right_gradients(model: nn.Module) -> list[Tensor]:
    by = ByHand()
    with by.forward():
        loss = tiny(model)
    return by.true(torch.autograd.grad(by.scale(loss), list(model.parameters())))


def tiny(model: nn.Module) -> Tensor:
    """So small that fp16 loses its gradients without scaling."""
    x, y = batch(1)
    return torch.nn.functional.mse_loss(model(x), y) * 2.0**-20


@pytest.mark.parametrize("kind", ["block", "function", "module"])
def test_a_backward_outside_is_scaled_or_says_that_it_is_not(kind: str) -> None:
    model, told = net(), list[str]()
    right = right_gradients(model)
    with says_so(told):
        if kind == "block":
            with turbo("fast", autocast="fp16"):
                loss = tiny(model)
        elif kind == "function":
            loss = accelerate(tiny, profile="fast", autocast="fp16")(model)
        else:
            accelerate(model, profile="fast", autocast="fp16")
            loss = tiny(model)
        loss.backward()
    found = [parameter.grad for parameter in model.parameters()]
    assert told or all(a is not None and torch.equal(a, b) for a, b in zip(found, right, strict=True))


def test_an_evaluation_alone_says_nothing() -> None:
    model, told = net(), list[str]()
    with says_so(told):
        with turbo("fast", autocast="fp16"), torch.no_grad():
            model(batch(0)[0])
        accelerate(model.eval(), profile="fast", autocast="fp16")
        with torch.no_grad():
            model(batch(0)[0])
    assert not told
