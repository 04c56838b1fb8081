"""Training loops, each written once: `forward` stands around forward and loss, and around nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Forward = Callable[[], AbstractContextManager[object]]
Recipe = Callable[[Forward], list[Tensor]]
"""Trains, and returns whatever shows how: losses, parameters, gradients."""

RECIPES: dict[str, Recipe] = {}


def recipe(train: Recipe) -> Recipe:
    RECIPES[train.__name__] = train
    return train


def perceptron(inputs: int = 16, width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))


def batches(steps: int = 5, inputs: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    data = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, inputs, generator=data)
        yield x, x.sum(1, keepdim=True).sin()


def traced(losses: list[Tensor], *modules: nn.Module) -> list[Tensor]:
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return [tensor.detach().clone() for tensor in (*losses, *tensors)]


def train_with(
    forward: Forward,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    model: nn.Module | None = None,
    after_step: Callable[[nn.Module, int], None] = lambda model, step: None,
) -> list[Tensor]:
    model = perceptron() if model is None else model
    stepper, losses = optimizer(model), []
    for step, (x, y) in enumerate(batches()):
        stepper.zero_grad()
        with forward():
            losses.append(F.mse_loss(model(x), y))
        losses[-1].backward()
        stepper.step()
        after_step(model, step)
    return traced(losses, model)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


# ----------------------------------------------------------------------------------------------------- models


@recipe
def mlp(forward: Forward) -> list[Tensor]:
    return train_with(forward, sgd)


@recipe
def conv_net(forward: Forward) -> list[Tensor]:
    images, labels = torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 2, 1])
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(128, 3),
    )
    stepper, losses = torch.optim.AdamW(model.parameters(), lr=0.01), []
    for _ in range(4):
        with forward():
            losses.append(F.cross_entropy(model(images), labels))
        losses[-1].backward()
        stepper.step()
        stepper.zero_grad()
    return traced(losses, model)


@recipe
def attention(forward: Forward) -> list[Tensor]:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    words = torch.randn(2, 8, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    stepper, losses = torch.optim.Adam(layer.parameters(), lr=0.01), []
    for _ in range(4):
        stepper.zero_grad()
        with forward():
            losses.append((layer(words, src_mask=mask, is_causal=True) - words.roll(1, 1)).square().mean())
        losses[-1].backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
        stepper.step()
    return traced(losses, layer)


# ------------------------------------------------------------------------------------------------- optimizers


@recipe
def accumulation(forward: Forward) -> list[Tensor]:
    model, losses = perceptron(), []
    stepper = sgd(model)
    for step, (x, y) in enumerate(batches(6)):
        with forward():
            loss = F.mse_loss(model(x), y) / 3
        loss.backward()
        losses.append(loss)
        if step % 3 == 2:
            stepper.step()
            stepper.zero_grad()
    return traced(losses, model)


@recipe
def lbfgs(forward: Forward) -> list[Tensor]:
    model, losses = perceptron(), []
    stepper = torch.optim.LBFGS(model.parameters(), max_iter=3, line_search_fn="strong_wolfe")
    for x, y in batches(3):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            stepper.zero_grad()
            with forward():
                losses.append(F.mse_loss(model(x), y))
            losses[-1].backward()
            return losses[-1].detach()

        stepper.step(closure)
        stepper.step(closure=closure)
    return traced(losses, model)


@recipe
def adafactor(forward: Forward) -> list[Tensor]:
    return train_with(forward, lambda model: torch.optim.Adafactor(model.parameters(), lr=0.05))


if hasattr(torch.optim, "Muon"):

    @recipe
    def muon(forward: Forward) -> list[Tensor]:
        def matrices(model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02)

        return train_with(forward, matrices)


@recipe
def step_in_a_gradient_hook(forward: Forward) -> list[Tensor]:
    """Each parameter steps as soon as backward has its gradient, so that no gradient outlives its layer."""
    model = perceptron()
    steppers = {p: torch.optim.Adafactor([p], lr=0.05) for p in model.parameters()}

    def step(parameter: Tensor) -> None:
        steppers[parameter].step()
        steppers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    losses = []
    for x, y in batches():
        with forward():
            losses.append(F.mse_loss(model(x), y))
        losses[-1].backward()
    return traced(losses, model)


# --------------------------------------------------------------------------------------------- weights edited


@recipe
def ema(forward: Forward) -> list[Tensor]:
    """A copy that follows, evaluated inside the loop, as is the model between its training steps."""
    model = perceptron()
    copy, seen = deepcopy(model).requires_grad_(False), []
    stepper = sgd(model)
    for x, y in batches():
        with forward():
            loss = F.mse_loss(model(x), y)
        loss.backward()
        stepper.step()
        stepper.zero_grad()
        torch._foreach_lerp_(list(copy.parameters()), [p.detach() for p in model.parameters()], 0.3)
        with torch.no_grad(), forward():
            seen += [loss, copy(x), model(x)]
    return traced(seen, model, copy)


@recipe
def loading(forward: Forward) -> list[Tensor]:
    first: list[dict[str, Tensor]] = []

    def go_back(model: nn.Module, step: int) -> None:
        if not first:
            first.append(deepcopy(model.state_dict()))
        elif step == 2:
            model.load_state_dict(first[0])

    return train_with(forward, sgd, after_step=go_back)


@recipe
def data_edits(forward: Forward) -> list[Tensor]:
    def edit(model: nn.Module, step: int) -> None:
        for parameter in model.parameters():
            if step % 2:
                parameter.data = parameter.data * 0.9
            else:
                parameter.data.mul_(0.9)

    return train_with(forward, sgd, after_step=edit)


@recipe
def numpy_edits(forward: Forward) -> list[Tensor]:
    def edit(model: nn.Module, step: int) -> None:
        for parameter in model.parameters():
            view = parameter.detach().numpy()
            view *= 0.9

    return train_with(forward, sgd, after_step=edit)
