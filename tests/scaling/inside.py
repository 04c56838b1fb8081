"""Loops whose forward pass holds more than layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.scaling.loops import QUIET, By, Loop, adam, batch, cacheless, loop, loudness, net, regression, sgd
from tests.scaling.ordinary import ordinary


class Around(nn.Module):
    """Two layers with a function between them, so that its backward reaches the first one's weight."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(16, width), function, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.first(x)).tanh())
        return result


class Recomputed(nn.Module):
    """Its middle is computed again in backward."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(16, 16), net(outputs=8), nn.Linear(8, 1)
        self.middle.insert(2, nn.Dropout(0.2))
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(checkpoint(self.middle, self.first(x), use_reentrant=self.use_reentrant))
        return result


@loop
def checkpointed(by: By) -> Loop:
    return ordinary(by, model=Recomputed(use_reentrant=False))


@loop
def checkpointed_reentrantly(by: By) -> Loop:
    return ordinary(by, model=Recomputed(use_reentrant=True))


@loop
def checkpointed_reentrantly_in_itself(by: By) -> Loop:
    inner = Recomputed(use_reentrant=True)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(16, 16), inner

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = checkpoint(self.inner, self.first(x), use_reentrant=True)
            return result

    return ordinary(by, model=Outer(), make=adam)


@loop
def checkpoints_accumulated(by: By) -> Loop:
    """Their gradients are added up inside a backward pass that another one runs."""
    model = Recomputed(use_reentrant=True)

    def more(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> Tensor:

        with by.forward():
            loss = regression(model, step, 1)
        by.scale(loss).backward()
        by.unscale(optimizer)
        return nn.utils.clip_grad_norm_(model.parameters(), 0.3 * QUIET)

    return ordinary(by, more, model=model)


def called_in_the_loop(by: By, *, use_reentrant: bool) -> Loop:
    """Two micro-batches, whose forward the loop itself checkpoints, with functions before any module."""
    model = net()
    optimizer = adam(model)

    def hidden(x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, model[0].weight))

    def step(number: int) -> object:
        optimizer.zero_grad()
        losses = []
        for part in (0, 1):
            x, y = batch(number, part)
            with by.forward():
                output = model[2:](checkpoint(hidden, x.requires_grad_(), use_reentrant=use_reentrant))
                losses.append(F.mse_loss(output, y) * loudness(number))
            by.scale(losses[-1]).backward()
        by.step(optimizer)
        by.update()
        return losses

    return Loop(step, [model], [optimizer])


@loop
def checkpoints_called_in_the_loop(by: By) -> Loop:
    return called_in_the_loop(by, use_reentrant=False)


@loop
def reentrant_checkpoints_called_in_the_loop(by: By) -> Loop:
    return called_in_the_loop(by, use_reentrant=True)


# ----------------------------------------------------------------------------------------------- float32 in between


def island(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        wide = x.float()
        return torch.einsum("bi,bj->bij", wide, wide.tanh()).mean(1) + wide @ wide.T @ wide * 0.01


def solved(x: Tensor) -> Tensor:
    square = x.T @ x
    return torch.linalg.solve(square.float() + 4 * torch.eye(16), x.float().T).T


class Product(torch.autograd.Function):
    """Multiplies in both directions, in whatever precision is in force there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x @ y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return (gradient.float() @ y.float().T).to(x.dtype), (x.float().T @ gradient.float()).to(y.dtype)


class Custom(torch.autograd.Function):
    """As torch's documents write it for mixed precision."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x.mm(y)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return gradient.mm(y.t()).to(x.dtype), x.t().mm(gradient).to(y.dtype)


class Wide(torch.autograd.Function):
    """Computed in float32, whatever comes in."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x.mm(y)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return gradient.mm(y.t()), x.t().mm(gradient)


@loop
def island_of_float32(by: By) -> Loop:
    return ordinary(by, model=Around(island))


@loop
def linear_algebra(by: By) -> Loop:
    return ordinary(by, model=Around(solved))


@loop
def function_of_ones_own(by: By) -> Loop:
    return ordinary(by, model=Around(lambda x: Product.apply(x, x.T @ x)))


@loop
def function_for_mixed_precision(by: By) -> Loop:
    return ordinary(by, model=Around(lambda x: Custom.apply(x, x.T @ x)))


@loop
def function_in_float32(by: By) -> Loop:
    return ordinary(by, model=Around(lambda x: Wide.apply(x, x.T @ x)))


# ----------------------------------------------------------------------------------------------------------- models


@cacheless
def shared_weights(by: By) -> Loop:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(16, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(F.linear(self.layer(self.layer(x).tanh()).tanh(), self.layer.weight.T))
            return result

    return ordinary(by, model=Tied())


@cacheless
def recurrence(by: By) -> Loop:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.last = nn.GRUCell(4, 12), nn.Linear(12, 1)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(8, 12)
            for part in x.split(4, 1):
                state = self.cell(part, state).float()
            result: Tensor = self.last(state)
            return result

    return ordinary(by, model=Recurrent(), make=adam)


@loop
def attention(by: By) -> Loop:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
            self.last = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(self.layer(x[:, None] * torch.linspace(-1, 1, 5)[:, None]).mean(1))
            return result

    return ordinary(by, model=Attending(), make=adam)


@loop
def convolutions(by: By) -> Loop:
    model = nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1)
    )
    return ordinary(by, model=model)


@loop
def half_loss(by: By) -> Loop:
    """Whose first gradient, the scale itself, is already too large for its type at times."""
    model = net()
    optimizer = sgd(model, lr=0.05)

    def step(number: int) -> object:

        x, y = batch(number)
        optimizer.zero_grad()
        with by.forward():
            loss = (model(x) * y.half()).mean()
        by.scale(loss).backward()
        by.step(optimizer)
        by.update()
        return loss

    return Loop(step, [model], [optimizer])
