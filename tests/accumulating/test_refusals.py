"""What cannot be accumulated raises, and says what to write instead; what may be meant otherwise warns."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from tests.accumulating.loops import AUTOCASTS, Autocast
from torchturbo import turbo
from torchturbo.errors import AccumulationError, AccumulationWarning


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def backward(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure(model: nn.Module, by_name: bool) -> None:
    for optimizer in (torch.optim.LBFGS(model.parameters()), sgd(model)):

        def closure(optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            raise AssertionError("it is not called")

        name = type(optimizer).__name__
        message = (
            f"accumulate=4: {name}.step is called with a closure, which computes the gradients of one batch by itself: "
            "loop over the micro-batches in the closure, without accumulate="
        )
        with (
            pytest.raises(AccumulationError, match=f"^{re.escape(message)}$"),
            turbo("fast", autocast=None, accumulate=4),
        ):
            optimizer.step(closure=closure) if by_name else optimizer.step(closure)


def test_a_closure_that_is_none_is_none(model: nn.Module) -> None:
    optimizer, before = sgd(model), model.weight.detach().clone()
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(2):
            backward(model, optimizer)
            assert torch.equal(model.weight, before)
            optimizer.step(None)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("autocast", AUTOCASTS)
def test_a_scaler_of_the_loops_own(model: nn.Module, autocast: Autocast) -> None:
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu")

    def train() -> None:
        with turbo("fast", autocast=autocast, accumulate=2):  # type: ignore[arg-type]
            scaler.scale(model(torch.ones(2, 3)).sum()).backward()
            scaler.step(optimizer)

    with pytest.raises(AccumulationError, match=r"a GradScaler of the loop's own .* take the GradScaler away"):
        train()
    assert model.weight.grad is None


def test_a_scaler_that_is_switched_off_is_none(model: nn.Module) -> None:
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", enabled=False)
    before = model.weight.detach().clone()
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(2):
            assert torch.equal(model.weight, before)
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(2, 3)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert not torch.equal(model.weight, before)


FOREIGN = "SGD.step is called with gradients that no backward in the block has left .* or accumulate by hand"


def test_gradients_of_autograd_grad(model: nn.Module) -> None:
    optimizer = sgd(model)
    parameters = list(model.parameters())

    def train() -> None:
        with turbo("fast", autocast=None, accumulate=2):
            found = torch.autograd.grad(model(torch.ones(2, 3)).sum(), parameters)
            for parameter, grad in zip(parameters, found, strict=True):
                parameter.grad = grad
            optimizer.step()

    with pytest.raises(AccumulationError, match=FOREIGN):
        train()


def test_gradients_of_copies_that_are_stepped_with(model: nn.Module) -> None:
    """Master weights: the optimizer has copies, whose gradients the loop copies from the model's."""
    masters = [parameter.detach().double().requires_grad_() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.1)

    def train() -> None:
        with turbo("fast", autocast=None, accumulate=2):
            model.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            for master, parameter in zip(masters, model.parameters(), strict=True):
                assert parameter.grad is not None
                master.grad = parameter.grad.double()
            optimizer.step()

    with pytest.raises(AccumulationError, match=FOREIGN):
        train()


def test_gradients_of_zeros_from_before_the_block_are_none(model: nn.Module) -> None:
    optimizer, unused = sgd(model), torch.ones(2, requires_grad=True)
    unused.grad = torch.zeros(2)
    optimizer.add_param_group({"params": [unused]})
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
    assert torch.equal(unused, torch.ones(2))


WARNING = "accumulate=4: the block ends after 3 of 4 micro-batches, and none has had all: put it around the loop"


def test_a_block_that_ends_in_its_first_window_warns(model: nn.Module) -> None:
    optimizer, before = sgd(model), model.weight.detach().clone()

    def train() -> None:
        with turbo("fast", autocast=None, accumulate=4):
            for _ in range(3):
                backward(model, optimizer)
                optimizer.step()

    with pytest.warns(AccumulationWarning, match=WARNING):
        train()
    assert torch.allclose(before - model.weight, torch.full((1, 3), 0.15))


def test_one_that_ends_later_does_not(model: nn.Module) -> None:
    optimizer = sgd(model)
    with turbo("fast", autocast=None, accumulate=4):
        for _ in range(7):
            backward(model, optimizer)
            optimizer.step()


def test_nor_one_that_trains_nothing(model: nn.Module) -> None:
    with turbo("fast", autocast=None, accumulate=4), torch.no_grad():
        model(torch.ones(2, 3))


@pytest.mark.parametrize("every", [2, 3])
def test_two_steps_for_one_backward(model: nn.Module, every: int) -> None:
    optimizer = sgd(model)

    def train() -> None:
        with turbo("fast", autocast=None, accumulate=every):
            backward(model, optimizer)
            optimizer.step()
            optimizer.step()

    with pytest.raises(AccumulationError, match=FOREIGN):
        train()


def test_two_optimizers_of_the_same_parameters_are_none(model: nn.Module) -> None:
    first, second, before = sgd(model), sgd(model), model.weight.detach().clone()
    with turbo("fast", autocast=None, accumulate=2):
        for _ in range(4):
            backward(model, first)
            first.step()
            second.step()
    assert torch.allclose(before - model.weight, torch.full((1, 3), 0.8))


def test_a_flush_between_a_backward_and_its_step(model: nn.Module) -> None:
    optimizer = sgd(model)

    def train() -> None:
        with turbo("fast", autocast=None, accumulate=2) as active:
            for number in range(4):
                backward(model, optimizer)
                if number == 3:
                    active.flush()
                optimizer.step()

    with pytest.raises(AccumulationError, match=FOREIGN):
        train()
