"""Whatever code in a block looks at is true: losses and gradients are not scaled, and autocast is where it belongs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tests.regions.watching import under_autocast
from tests.scaling.loops import (
    OPTIONS,
    QUIET,
    ByHand,
    batch,
    by_hand,
    differences,
    flat,
    net,
    regression,
    sgd,
    untouched,
)
from tests.scaling.ordinary import basic
from torchturbo import turbo


def fp16(**options: Any) -> turbo:
    return turbo("fast", autocast="fp16", **{**OPTIONS, **options})


def right_gradients(model: nn.Module, step: int = 1) -> list[Tensor]:
    by = ByHand(**OPTIONS)
    with by.forward():
        loss = regression(model, step)
    return by.true(torch.autograd.grad(by.scale(loss), list(model.parameters())))


def test_a_loss_is_what_it_was_after_backward() -> None:
    model = net()
    with fp16():
        loss = regression(model, 1)
        before = loss.detach().clone()
        loss.backward()
        assert torch.equal(loss, before)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(regression(model, 1), before)


def test_hooks_see_true_gradients() -> None:
    model, seen, after = net(), [], []
    weight = model[2].weight
    weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    weight.register_post_accumulate_grad_hook(lambda leaf: after.append(leaf.grad.clone()))
    right = right_gradients(model)[2]
    seen.clear()
    with fp16():
        regression(model, 1).backward()
        regression(model, 1).backward()
    assert [torch.equal(gradient, right) for gradient in seen] == [True, True]
    assert [torch.equal(gradient, 2 * right / factor) for gradient, factor in zip(after, (2, 1), strict=True)] == [
        True,
        True,
    ]


def test_a_multi_grad_hook_sees_them() -> None:
    model, seen = net(), []
    right = right_gradients(model)
    torch.autograd.graph.register_multi_grad_hook(list(model.parameters()), lambda grads: seen.append(list(grads)))
    with fp16():
        regression(model, 1).backward()
    assert not differences(dict(flat(seen)), dict(flat([right])))


def test_leaves_may_share_a_gradient() -> None:
    def trained(scale: float) -> list[Tensor]:
        torch.manual_seed(0)
        first, second = nn.Linear(16, 16), nn.Linear(16, 16)
        optimizer = sgd(first, second, lr=0.001 / QUIET, momentum=0)
        shared = torch.zeros(16, 16)
        first.weight.grad = second.weight.grad = shared
        for step in (1, 2, 3):
            optimizer.zero_grad(set_to_none=False)
            for part in (0, 1):
                with torch.autocast("cpu", torch.float16) if scale != 1 else nullcontext():
                    loss = regression(lambda x: second(first(x)).sum(1, keepdim=True), step, part)
                (loss * scale if scale != 1 else loss).backward()
            if scale != 1:
                for gradient in {id(p.grad): p.grad for p in (*first.parameters(), *second.parameters())}.values():
                    gradient.div_(scale)
            assert first.weight.grad is second.weight.grad is shared
            optimizer.step()
        return [shared, *(p.detach() for p in (*first.parameters(), *second.parameters()))]

    expected = trained(2.0**16)
    with fp16():
        found = trained(1)
    assert all(map(torch.equal, found, expected))
    assert all(tensor.isfinite().all() for tensor in found)


def test_a_gradient_that_is_a_view_or_expanded_is_true() -> None:
    """As gradients in one flat buffer are."""
    model = net()
    right = right_gradients(model)
    buffer = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
    for parameter, part in zip(model.parameters(), buffer.split([p.numel() for p in model.parameters()]), strict=True):
        parameter.grad = part.view_as(parameter)
    with fp16():
        regression(model, 1).backward()
        regression(model, 1).backward()
    assert torch.equal(buffer, torch.cat([2 * gradient.flatten() for gradient in right]))


def test_gradients_in_inference_and_without_any_leaf() -> None:
    model = net().requires_grad_(False)
    with fp16() as active:
        with pytest.raises(RuntimeError, match="does not require grad"):
            regression(model, 1).backward()
        with torch.inference_mode():
            regression(model, 1)
        assert active.scaler.last_step_ran is None


def test_autocast_is_off_from_backward_to_the_end_of_the_step() -> None:
    model = net()
    optimizer = sgd(model)
    seen = {}
    optimizer.register_step_pre_hook(lambda *args: seen.update(step=under_autocast()))
    model[0].weight.register_hook(lambda gradient: seen.update(hook=under_autocast()))
    with fp16():
        for number in (1, 2):
            seen["before"] = under_autocast()
            loss = regression(model, number)
            seen["loss"] = under_autocast()
            loss.backward()
            seen["between"] = under_autocast()
            optimizer.step()
            seen["after"] = under_autocast()
            assert seen == {
                "before": True,
                "loss": True,
                "hook": False,
                "between": False,
                "step": False,
                "after": True,
            }


def test_autocast_is_on_again_for_the_next_forward_without_a_step() -> None:
    model = net()
    with fp16():
        for part in range(2):
            assert model(batch(0, part)[0]).dtype is torch.float16
            regression(model, 1, part).backward()
        assert model(batch(0)[0]).dtype is torch.float16


def test_autocast_is_on_again_after_a_skipped_step() -> None:
    model = net()
    optimizer = sgd(model)
    with fp16() as active:
        regression(model, 0).backward()
        optimizer.step()
        assert active.scaler.last_step_ran is False
        assert under_autocast()


def test_a_block_leaves_no_trace_in_another_ones_bf16() -> None:
    assert not differences(untouched(basic), by_hand(basic))
    model = net()
    with turbo("fast"):
        assert model(batch(0)[0]).dtype is torch.bfloat16
        loss = regression(model, 1)
        loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = regression(model, 1)
    right = torch.autograd.grad(loss, list(model.parameters()))
    assert all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(model.parameters(), right, strict=True))


def test_autograd_functions_of_torch_func() -> None:
    """`torch.func.grad` differentiates as it does by hand, whose gradients are written to the parameters here."""

    def trained(around: Any) -> list[Tensor]:
        torch.manual_seed(0)
        model = net()
        optimizer = sgd(model, lr=0.1)
        for step in (1, 2, 3):
            x, y = batch(step)

            def loss_of(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
                return (functional_call(model, weights, (x,)).float() - y).square().mean()

            with around():
                weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
                whole = grad(loss_of)(weights, x, y)
                each = vmap(grad(loss_of), in_dims=(None, 0, 0))(weights, x, y)
            for name, parameter in model.named_parameters():
                parameter.grad = whole[name].float() + each[name].float().mean(0)
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    expected = trained(partial(torch.autocast, "cpu", torch.float16, cache_enabled=False))
    with fp16() as active:
        found = trained(nullcontext)
        assert active.scaler.last_step_ran is True
    assert all(map(torch.equal, found, expected))
