"""Models and optimizers that were trained in a block copy, pickle and save like any others, at any moment in it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.scaling.loops import OPTIONS, STEPS, ByHand, Untouched, differences, flat, net, regression, sgd
from torchturbo import accelerate, turbo


def through_pickle(model: nn.Module) -> nn.Module:
    result: nn.Module = pickle.loads(pickle.dumps(model))
    return result


def through_torch(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    result: nn.Module = torch.load(file, weights_only=False)
    return result


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, through_pickle, through_torch]


def trained(by: Any, again: Callable[[nn.Module], nn.Module]) -> dict[str, object]:
    """In the middle, between backward and the step, training goes on with a copy; the first one's `.grad` stays."""
    torch.manual_seed(0)
    model = net()
    optimizer = sgd(model)
    seen = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with by.forward():
            loss = regression(model, step)
        by.scale(loss).backward()
        by.unscale(optimizer)
        by.step(optimizer)
        by.update()
        seen.append(loss.detach())
        if step in (3, 5):
            model, state = again(model), optimizer.state_dict()
            optimizer = sgd(model)
            optimizer.load_state_dict(copy.deepcopy(state))
    return dict(flat([seen, model.state_dict(), optimizer.state_dict()["state"]]))


@pytest.mark.parametrize("again", COPIES, ids=lambda again: again.__name__)
def test_training_goes_on_with_a_copy(again: Callable[[nn.Module], nn.Module]) -> None:
    with turbo("fast", autocast="fp16", **OPTIONS):
        found = trained(Untouched(), again)
    assert not differences(found, trained(ByHand(**OPTIONS), again))


@pytest.mark.parametrize("again", COPIES, ids=lambda again: again.__name__)
def test_nothing_is_put_into_what_is_trained(again: Callable[[Any], Any]) -> None:
    def keys(model: nn.Module, optimizer: torch.optim.Optimizer) -> object:
        return (
            sorted(vars(model)),
            [sorted(vars(parameter)) for parameter in model.parameters()],
            sorted(vars(optimizer)),
            [sorted(state) for state in optimizer.state.values()],
            [len(parameter._backward_hooks or ()) for parameter in model.parameters()],
        )

    plain, model = net(), net()
    plain_optimizer, optimizer = sgd(plain), sgd(model)
    regression(plain, 1).backward()
    plain_optimizer.step()
    with turbo("fast", autocast="fp16", **OPTIONS):
        for step in range(4):
            optimizer.zero_grad()
            regression(model, step).backward()
            inside = again(model)
            optimizer.step()
    assert keys(model, optimizer) == keys(plain, plain_optimizer)
    assert sorted(vars(inside)) == sorted(vars(plain))
    assert sorted(vars(again(optimizer))) == sorted(vars(again(plain_optimizer)))


def test_an_accelerated_model_in_a_block_trains_as_itself() -> None:
    """Its forward opens a block of its own; results are float32 there, as its outputs are converted."""
    torch.manual_seed(0)
    model = net()
    by = ByHand(**OPTIONS)
    twin = copy.deepcopy(model)
    of_twin, optimizer = sgd(twin), sgd(model)
    for step in range(6):
        of_twin.zero_grad()
        with by.forward():
            loss = regression(twin, step)
        by.scale(loss).backward()
        by.step(of_twin)
        by.update()
    accelerate(model, profile="fast", autocast="fp16", **OPTIONS)
    with turbo("fast", autocast="fp16", **OPTIONS) as active:
        for step in range(6):
            optimizer.zero_grad()
            regression(model, step).backward()
            optimizer.step()
    found = {name.removeprefix("module."): value for name, value in model.state_dict().items()}
    assert not differences(dict(flat(found)), dict(flat(twin.state_dict())))
    assert active.scaler.skipped_steps == by.skipped
