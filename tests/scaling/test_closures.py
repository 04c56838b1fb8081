"""Steps that evaluate their loss themselves: an evaluation that overflows is done again at half the scale."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.scaling.loops import QUIET, batch, differences, flat, net
from torchturbo import turbo
from torchturbo.errors import ScalingError

LOUD = 2.0**2

# A line search tries points at which hardly any scale is small enough, and the block says so.
pytestmark = pytest.mark.filterwarnings("ignore::torchturbo.errors.ScalingWarning")

Make = Callable[[nn.Module], torch.optim.Optimizer]

MAKERS: dict[str, Make] = {
    "lbfgs": lambda model: torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, tolerance_grad=0),
    "lbfgs with a line search": lambda model: torch.optim.LBFGS(
        model.parameters(), max_iter=4, line_search_fn="strong_wolfe", tolerance_grad=0
    ),
    "rprop": lambda model: torch.optim.Rprop(model.parameters(), lr=0.01),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-12, foreach=True),
}


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    return torch.nn.functional.mse_loss(model(x), y) * (LOUD if step == 2 else QUIET)


def by_hand(make: Make, init_scale: float) -> tuple[list[object], float]:
    torch.manual_seed(0)
    model = net()
    optimizer, scale, losses, evaluations = make(model), [init_scale], [], [0]

    def closure(step: int) -> Tensor:
        with torch.enable_grad():
            while True:
                optimizer.zero_grad()
                evaluations[0] += 1
                with torch.autocast("cpu", torch.float16):
                    loss = loss_of(model, step)
                (loss * scale[0]).backward()
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= scale[0]
                if all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()):
                    return loss.detach()
                scale[0] /= 2

    for step in range(5):
        losses.append(optimizer.step(lambda step=step: closure(step)))
    assert scale[0] < init_scale
    return [losses, model.state_dict(), optimizer.state_dict()["state"], evaluations], scale[0]


def untouched(make: Make, init_scale: float, by_name: bool) -> tuple[list[object], float]:
    torch.manual_seed(0)
    model = net()
    optimizer, losses, evaluations = make(model), [], [0]
    with turbo("fast", autocast="fp16", init_scale=init_scale) as active:
        for step in range(5):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                evaluations[0] += 1
                loss = loss_of(model, step)
                loss.backward()
                return loss.detach()

            losses.append(optimizer.step(closure=closure) if by_name else optimizer.step(closure))
        scale = active.scaler.get_scale()
    return [losses, model.state_dict(), optimizer.state_dict()["state"], evaluations], scale


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("init_scale", [2.0**16, 2.0**30])
@pytest.mark.parametrize("name", MAKERS)
def test_an_evaluation_that_overflows_is_done_again(name: str, init_scale: float, by_name: bool) -> None:
    expected, scale = by_hand(MAKERS[name], init_scale)
    found, found_scale = untouched(MAKERS[name], init_scale, by_name)
    assert not differences(dict(flat(found)), dict(flat(expected)))
    assert found_scale == scale


def test_a_closure_with_two_backwards_is_done_again_as_a_whole() -> None:
    def trained(hand: bool) -> dict[str, object]:
        torch.manual_seed(0)
        model = net()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
        scale = [2.0**20]

        def closure(step: int) -> Any:
            optimizer.zero_grad()
            losses = []
            for part in (0, 1):
                with torch.autocast("cpu", torch.float16) if hand else nullcontext():
                    losses.append(loss_of(model, 2 * step + part))
                (losses[-1] * scale[0] if hand else losses[-1]).backward()
            return sum(losses).detach()

        def again(step: int) -> Any:
            while True:
                loss = closure(step)
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= scale[0]
                if all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()):
                    return loss
                scale[0] /= 2

        losses = [optimizer.step(lambda step=step: (again if hand else closure)(step)) for step in range(3)]
        return dict(flat([losses, model.state_dict()]))

    with turbo("fast", autocast="fp16", init_scale=2.0**20):
        found = trained(hand=False)
    assert not differences(found, trained(hand=True))


@pytest.mark.parametrize("name", ["lbfgs", "rprop"])
def test_a_loss_that_is_infinite_at_every_scale_is_an_error(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(batch(0)[0]).float().mean() * float("nan")
        loss.backward()
        return loss

    with turbo("fast", autocast="fp16", init_scale=2.0**16), pytest.raises(ScalingError):
        optimizer.step(closure)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_closure_without_backward_runs_once() -> None:
    """As for a loss that is only reported, next to gradients that are there."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 / QUIET)
    calls = []
    with turbo("fast", autocast="fp16", init_scale=2.0**16) as active:
        loss_of(model, 1).backward()
        optimizer.step(lambda: calls.append(0) or 0.5)
        assert active.scaler.last_step_ran is True
    assert len(calls) == 1


@pytest.mark.parametrize("overflows", [2, 3])
def test_a_closure_that_adds_to_gradients_has_its_step_left_out(overflows: int) -> None:
    """As Lightning's do where it accumulates: done again, they would add to what is not finite, or twice."""

    def loss_in(model: nn.Module, number: int) -> Tensor:
        x, y = batch(number)
        return torch.nn.functional.mse_loss(model(x), y) * (2.0**30 if number == overflows else QUIET)

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = net()
        return model, torch.optim.SGD(model.parameters(), lr=0.1 / QUIET, momentum=0.9)

    model, optimizer = made()
    by_hand = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for number in range(6):
        with torch.autocast("cpu", torch.float16):
            loss = loss_in(model, number)
        by_hand.scale(loss).backward()
        if number % 2:
            by_hand.step(optimizer)
            by_hand.update()
            optimizer.zero_grad()
    expected = dict(flat([model.state_dict(), optimizer.state_dict()]))
    model, optimizer = made()
    returned = []
    with turbo("fast", autocast="fp16", init_scale=2.0**16) as active:
        for number in range(6):

            def closure(number: int = number) -> Tensor:
                if not number % 2:
                    optimizer.zero_grad()
                loss = loss_in(model, number)
                loss.backward()
                return loss.detach()

            returned.append(optimizer.step(closure) if number % 2 else closure())
        optimizer.zero_grad()
        assert (active.scaler.steps, active.scaler.skipped_steps) == (2, 1)
        assert active.scaler.get_scale() == by_hand.get_scale() == 2.0**15
    assert all(isinstance(each, Tensor) for each in returned)
    assert not differences(dict(flat([model.state_dict(), optimizer.state_dict()])), expected)
