"""Errors that leave a block, and steps that raise in one, leave true gradients and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from tests.regions.watching import in_place, under_autocast
from tests.scaling.failing import NotToday
from tests.scaling.loops import OPTIONS, QUIET, STEPS, ByHand, Untouched, differences, flat, net, regression
from torchturbo import turbo


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = in_place()
    yield
    assert in_place() == before
    assert not under_autocast()


def fp16(**options: Any) -> turbo:
    return turbo("fast", autocast="fp16", **{**OPTIONS, **options})


def fail_in_forward(model: nn.Module) -> None:
    model.register_forward_hook(lambda *args: raise_now())


def fail_in_backward(model: nn.Module) -> None:
    model[2].weight.register_hook(lambda gradient: raise_now())


def fail_after_accumulation(model: nn.Module) -> None:
    model[2].weight.register_post_accumulate_grad_hook(lambda parameter: raise_now())


def raise_now() -> None:
    raise NotToday


def train_and_fail(model: nn.Module, by: Any, fail: Callable[[nn.Module], None]) -> None:
    for step in (1, 2):
        with by.forward():
            loss = regression(model, step)
        by.scale(loss).backward()
        if step == 1:
            fail(model)


@pytest.mark.parametrize("fail", [fail_in_forward, fail_in_backward, fail_after_accumulation])
def test_an_error_leaves_true_gradients_and_nothing_else(fail: Callable[[nn.Module], None]) -> None:
    """Also those that stood there before, and in modules that are used afterwards without a block."""

    def trained(by: Any, around: Any) -> tuple[list[object], nn.Module]:
        torch.manual_seed(0)
        model = net()
        with pytest.raises(NotToday), around:
            train_and_fail(model, by, fail)
        return by.true([parameter.grad for parameter in model.parameters()]), model

    expected, _ = trained(ByHand(**OPTIONS), nullcontext())
    found, model = trained(Untouched(), fp16())
    assert not differences(dict(flat(found)), dict(flat(expected)))
    assert [len(p._backward_hooks or ()) for p in model.parameters()] == [0, 0, fail is fail_in_backward, 0, 0, 0]


@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_raises(first: bool) -> None:
    """It is the loop's to say what comes of it; the scale goes on with the next one."""

    class Failing(torch.optim.SGD):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            self.calls += 1
            if self.calls in (1 if first else 3, 5):
                raise NotToday
            return super().step(closure)

    def trained(by: Any, around: Any) -> dict[str, object]:
        torch.manual_seed(0)
        model = net()
        optimizer = Failing(model.parameters(), lr=0.1 / QUIET, momentum=0.9)
        seen = []
        with around:
            for step in range(STEPS):
                optimizer.zero_grad()
                with by.forward():
                    loss = regression(model, step)
                by.scale(loss).backward()
                try:
                    by.step(optimizer)
                except NotToday:
                    seen.append(step)
                by.update()
        return dict(flat([seen, optimizer.calls, model.state_dict(), optimizer.state_dict()["state"]]))

    # At an interval that nothing reaches: whether a step that raised counts towards it is nobody's to say.
    options = {"init_scale": 2.0**16}
    expected = trained(ByHand(**options), nullcontext())
    assert not differences(trained(Untouched(), turbo("fast", autocast="fp16", **options)), expected)
    assert ".0.1" in expected
