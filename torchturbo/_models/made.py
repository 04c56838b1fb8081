"""What making one of the models gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Made:
    """A model, and all that a step of training needs.

    Attributes:
        name: ``"gpt small"``.
        step: takes one step of training, on the same batch each time; returns its loss.
        model: the model.
        optimizer: the optimizer.
        about: what it is, as half a sentence: its size and its batch.
    """

    name: str
    step: Callable[[], Tensor]
    model: nn.Module
    optimizer: Optimizer
    about: str


def made(name: str, model: nn.Module, optimizer: Optimizer, loss: Callable[[], Tensor], batch: str) -> Made:
    """A model with the step that every loop has: clear, forward, backward, step.

    Args:
        name: what it is called.
        model: the model.
        optimizer: of its parameters.
        loss: the loss of its batch.
        batch: what a batch is, in words.
    """

    def step() -> Tensor:
        optimizer.zero_grad()
        its = loss()
        its.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return its.detach()

    step.__qualname__ = name
    parameters = sum(parameter.numel() for parameter in model.parameters())
    how = type(optimizer).__name__
    return Made(name, step, model, optimizer, f"{name}: {parameters:,} parameters, {batch} a step, {how}")
