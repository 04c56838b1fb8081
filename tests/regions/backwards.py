"""Training loops whose backward is more than one pass through plain layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.regions.training import (
    RECIPES,
    Forward,
    Recipe,
    batches,
    perceptron,
    recipe,
    sgd,
    traced,
    train_with,
)


def checkpointed(use_reentrant: bool) -> Recipe:
    def train(forward: Forward) -> list[Tensor]:
        class Recomputed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.rest = nn.Linear(16, 16), perceptron()

            def forward(self, x: Tensor) -> Tensor:
                result: Tensor = checkpoint(self.rest, self.first(x), use_reentrant=use_reentrant)
                return result

        return train_with(forward, sgd, Recomputed())

    return train


RECIPES["checkpoint"] = checkpointed(use_reentrant=False)
RECIPES["checkpoint_reentrant"] = checkpointed(use_reentrant=True)


class Around(nn.Module):
    """Two layers with a function between them, so that its backward reaches the first one's weight."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(16, 16), function, nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.first(x)).tanh())
        return result


def middle(function: Callable[[Tensor], Tensor]) -> Recipe:
    return lambda forward: train_with(forward, sgd, Around(function))


def island(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        wide = x.float()
        return torch.einsum("bi,bj->bij", wide, wide.tanh()).mean(1) + wide @ wide.T @ wide * 0.01


def solve(x: Tensor) -> Tensor:
    square = x.T @ x
    return torch.linalg.solve(square.float() + 4 * torch.eye(16), x.float().T).T


def distances(x: Tensor) -> Tensor:
    # From 26 points on, torch has a matrix product in it.
    points = x.float().tanh().repeat(4, 1) + torch.linspace(-1, 1, 32)[:, None]
    return torch.cdist(points, points.flip(1)).unflatten(0, (4, 8)).sum((0, 2))[:, None] * x


class Product(torch.autograd.Function):
    """Multiplies in both directions, in whatever precision is in force there."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x @ y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return grad @ y.T, x.T @ grad


def own_product(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        wide = x.float().tanh()
        product: Tensor = Product.apply(wide, wide.T @ wide)
    return product


RECIPES["fp32_island"] = middle(island)
RECIPES["linalg"] = middle(solve)
RECIPES["cdist"] = middle(distances)
RECIPES["own_function"] = middle(own_product)


@recipe
def gradient_penalty(forward: Forward) -> list[Tensor]:
    model, losses = Around(island), []
    stepper = sgd(model)
    for x, y in batches():
        x.requires_grad_()
        with forward():
            loss = F.mse_loss(model(x), y)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        with forward():
            loss = loss + (slope @ slope.T).float().trace().sqrt()
        loss.backward()
        stepper.step()
        stepper.zero_grad()
        losses += [loss, slope]
    return traced(losses, model)


@recipe
def hessian_vector(forward: Forward) -> list[Tensor]:
    model, products = Around(island), []
    parameters = list(model.parameters())
    for x, y in batches(3):
        with forward():
            loss = F.mse_loss(model(x), y)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        products += torch.autograd.grad(slopes, parameters, [torch.ones_like(p) for p in parameters])
    return traced(products)


@recipe
def functional_gradient(forward: Forward) -> list[Tensor]:
    model, losses = Around(island), []
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    for x, y in batches():

        def loss(parameters: dict[str, Tensor], x: Tensor = x, y: Tensor = y) -> Tensor:
            with forward():
                return F.mse_loss(torch.func.functional_call(model, parameters, (x,)), y)

        slopes, value = torch.func.grad_and_value(loss)(parameters)
        parameters = {name: p - 0.1 * slopes[name] for name, p in parameters.items()}
        losses.append(value)
    return traced([*losses, *parameters.values()])


@recipe
def products_in_gradient_hooks(forward: Forward) -> list[Tensor]:
    model = perceptron()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.register_hook(lambda grad: grad @ grad.T @ grad)
    return train_with(forward, sgd, model)
