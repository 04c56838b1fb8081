"""What cannot be scaled is refused in words, before anything has been added to a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.regions.watching import in_place
from tests.scaling.loops import OPTIONS, batch, by_hand, differences, net, regression, untouched
from tests.scaling.ordinary import basic
from torchturbo import turbo
from torchturbo.errors import ScalingError, TurboError


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = in_place()
    yield
    assert in_place() == before


def halved() -> None:
    model = net().half()
    model(batch(0)[0].half()).float().mean().backward()


def partly_halved() -> None:
    model = net()
    model[2].half()
    model(batch(0)[0]).float().mean().backward()


def cut_out() -> None:
    model = net()
    hidden = model[:2](batch(0)[0])
    cut = hidden.detach().requires_grad_()
    model[2:](cut).float().mean().backward()


@pytest.mark.parametrize("train", [halved, partly_halved])
def test_half_parameters_are_refused(train: Callable[[], None]) -> None:
    with turbo("fast", autocast="fp16"), pytest.raises(ScalingError, match=r"model\.float\(\)"):
        train()


def test_a_half_activation_that_is_cut_out_is_refused() -> None:
    with turbo("fast", autocast="fp16"), pytest.raises(ScalingError, match="detach"):
        cut_out()


def test_nothing_was_added_to_gradients() -> None:
    model = net()
    with turbo("fast", autocast="fp16"):
        regression(model, 1).backward()
        before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        leaf = torch.zeros(8, 16, dtype=torch.float16, requires_grad=True)
        loss = regression(lambda x: model(x + leaf), 2)
        with pytest.raises(ScalingError):
            loss.backward()
    assert all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert leaf.grad is None


def test_half_parameters_that_are_frozen_are_not() -> None:
    """As a language model's, under an adapter."""
    model, adapter = net(outputs=16).half().requires_grad_(False), nn.Linear(16, 1)
    with turbo("fast", autocast="fp16", **OPTIONS):
        regression(lambda x: adapter(model(x.half())), 1).backward()
    assert adapter.weight.grad is not None
    assert adapter.weight.grad.any()


def test_after_a_refusal_everything_goes_on() -> None:
    with turbo("fast", autocast="fp16"), pytest.raises(ScalingError):
        halved()
    assert not differences(untouched(basic), by_hand(basic))


def test_double_parameters_are_scaled_too() -> None:
    """Beside float32 ones, as a scale or a temperature is."""
    model, temperature = net(), torch.ones(1, dtype=torch.float64, requires_grad=True)

    def gradients(scale: float) -> list[Tensor]:
        model.zero_grad()
        temperature.grad = None
        (regression(model, 1).double() * temperature.square()).mul(scale).sum().backward()
        leaves = [*model.parameters(), temperature]
        return [leaf.grad / scale for leaf in leaves if leaf.grad is not None]

    with torch.autocast("cpu", torch.float16):
        loss = regression(model, 1)
    (loss.double() * temperature.square()).mul(2.0**16).sum().backward()
    right = [leaf.grad / 2.0**16 for leaf in (*model.parameters(), temperature) if leaf.grad is not None]
    with turbo("fast", autocast="fp16"):
        found = gradients(1)
    assert len(right) == 7
    assert all(map(torch.equal, found, right))


def test_a_step_with_gradients_that_nobody_scaled_is_refused() -> None:
    """Of all parameters they are scaled; of some they may only be looked at, until a step is to be taken with them."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = model[2].weight
    before = weight.detach().clone()
    with turbo("fast", autocast="fp16"):
        (looked_at,) = torch.autograd.grad(regression(model, 1), [weight])
        optimizer.step()
        weight.grad = looked_at
        with pytest.raises(ScalingError, match=r"loss\.backward\(inputs="):
            optimizer.step()
    assert torch.equal(weight, before)


def test_half_parameters_whose_gradients_are_asked_for_are_refused() -> None:
    model = net().half()
    with turbo("fast", autocast="fp16"), pytest.raises(ScalingError, match=r"model\.float\(\)"):
        torch.autograd.grad(model(batch(0)[0].half()).float().mean(), list(model.parameters()))


def test_it_is_an_error_of_this_package() -> None:
    assert issubclass(ScalingError, TurboError)
    assert issubclass(ScalingError, RuntimeError)
