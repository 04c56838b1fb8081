"""Accumulation where a backward is more than one pass through plain layers: against the loop by hand, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils.checkpoint import checkpoint

from tests.accumulating.loops import AUTOCASTS, Autocast, Case, check, forward
from torchturbo import turbo


@pytest.mark.parametrize("autocast", AUTOCASTS)
@pytest.mark.parametrize("middle", ["checkpoint", "checkpoint_reentrant", "sparse"])
@pytest.mark.parametrize("clip", [None, "norm"])
def test_checkpoints_and_sparse_gradients(middle: str, autocast: Autocast, clip: str | None) -> None:
    check(Case(every=3, micro=7, middle=middle, autocast=autocast, clip=clip))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_what_comes_before_a_checkpoint_gets_the_gradients_of_fp16(reentrant: bool, shared: bool) -> None:
    """Without accumulation too: a checkpoint's own backward goes on with gradients that are scaled."""
    torch.manual_seed(0)
    first, middle, last, x = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1), torch.randn(3, 4)
    parameters = [*first.parameters(), *middle.parameters(), *last.parameters()]

    def gradients(by_hand: bool) -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=by_hand)
        with forward("fp16") if by_hand else turbo("fast", autocast="fp16", init_scale=1024.0):
            seen = first(x).float()
            for _ in range(2):
                seen = checkpoint(middle, seen, use_reentrant=reentrant).float()
            loss = last(middle(seen) if shared else seen).float().tanh().sum()
            if not by_hand:
                loss.backward()
        if by_hand:
            for parameter in parameters:
                parameter.grad.mul_(1024.0)  # type: ignore[union-attr]
            scaler.scale(loss).backward()
            for parameter in parameters:
                parameter.grad.div_(1024.0)  # type: ignore[union-attr]
        return [parameter.grad.clone() for parameter in parameters]  # type: ignore[union-attr]

    assert all(torch.equal(one, other) for one, other in zip(gradients(False), gradients(True), strict=True))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


DATA = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1))


def parameters_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("autocast", AUTOCASTS)
def test_hooks_of_gradients_see_what_they_see_by_hand(autocast: Autocast) -> None:
    def train(by_hand: bool) -> list[Tensor]:
        model, seen = mlp(), []
        for parameter in model.parameters():
            # What a hook of the gradient sees is scaled, by hand.
            factor = 256.0 if by_hand and autocast == "fp16" else 1.0
            parameter.register_hook(lambda grad, factor=factor: seen.append(grad / factor) or grad * 0.5)
            parameter.register_post_accumulate_grad_hook(lambda p, factor=factor: seen.append(p.grad / factor))
        optimizer = Adam(model.parameters(), 0.01)
        if not by_hand:
            with turbo("fast", autocast=autocast, accumulate=3, init_scale=256.0):  # type: ignore[arg-type]
                for x in DATA:
                    optimizer.zero_grad()
                    model(x).float().square().mean().backward()
                    optimizer.step()
        else:
            scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=autocast == "fp16")
            with turbo("fast", autocast=None):
                for number, x in enumerate(DATA):
                    with forward(autocast):
                        loss = model(x).float().square().mean()
                    scaler.scale(loss / 3).backward()
                    if number % 3 == 2 or number == len(DATA) - 1:
                        scaler.step(optimizer)
                        scaler.update()
                        optimizer.zero_grad()
        return [*seen, *parameters_of(model)]

    assert all(torch.equal(one, other) for one, other in zip(train(False), train(True), strict=True))


@pytest.mark.parametrize("autocast", AUTOCASTS)
def test_optimizers_that_step_within_backward(autocast: Autocast) -> None:
    """Each parameter steps as soon as its gradient is there: in the last backward of a window, and in the flush."""

    def train(by_hand: bool) -> list[Tensor]:
        model, micro = mlp(), 0
        optimizers = {parameter: SGD([parameter], 0.1, momentum=0.9) for parameter in model.parameters()}

        def step(parameter: Tensor) -> None:
            if not by_hand or micro in (3, 6, 7):
                optimizers[parameter].step()  # type: ignore[index]
                optimizers[parameter].zero_grad()  # type: ignore[index]

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        if not by_hand:
            with turbo("fast", autocast=autocast, accumulate=3):  # type: ignore[arg-type]
                for x in DATA:
                    model(x).float().square().mean().backward()
        else:
            with turbo("fast", autocast=None):
                for x in DATA:
                    micro += 1
                    with forward(autocast):
                        loss = model(x).float().square().mean()
                    (loss / 3).backward()
        return parameters_of(model)

    if autocast == "fp16":
        # There is no such loop by hand, with a GradScaler; in bf16 and in float32 there is.
        assert all(parameter.isfinite().all() for parameter in train(False))
    else:
        assert all(torch.equal(one, other) for one, other in zip(train(False), train(True), strict=True))


def test_inputs_whose_gradients_are_asked_for_are_not_kept() -> None:
    model, kept = mlp(), []
    optimizer = SGD(model.parameters(), 0.1)
    with turbo("fast", autocast=None, accumulate=2) as active:
        for _ in range(20):
            x = torch.randn(3, 4, requires_grad=True)
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
            kept.append(torch.empty(5))  # so that no later input has the identity of an earlier one
        from torchturbo.regions._backward import accumulating_in

        accumulating = accumulating_in(active.writes)
        assert accumulating is not None
        assert len(accumulating._of_leaf) <= len(list(model.parameters())) + 2


def test_gradients_read_and_replaced_before_a_step() -> None:
    """What the loop makes of gradients before a step counts in the last one of a window, as it is written by hand."""

    def train(by_hand: bool) -> list[Tensor]:
        model = mlp()
        optimizer = SGD(model.parameters(), 0.1, momentum=0.9)

        def change() -> None:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad = parameter.grad.sign() * parameter.grad.norm()

        with turbo("fast", autocast=None, accumulate=1 if by_hand else 3):
            for number, x in enumerate(DATA):
                (model(x).square().mean() / (3 if by_hand else 1)).backward()
                if not by_hand or number in (2, 5, 6):
                    change()
                    optimizer.step()
                    optimizer.zero_grad()
        return parameters_of(model)

    assert all(torch.equal(one, other) for one, other in zip(train(False), train(True), strict=True))
