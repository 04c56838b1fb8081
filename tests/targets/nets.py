"""Modules for the tests, in a file of their own so that they can be found by name when they are unpickled."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchturbo import accelerate


class Net(nn.Module):
    """Two layers, which compute in bf16 under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 4)
        self.ran_in: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Any:
        """The net's output, for a tensor."""
        hidden = torch.relu(self.first(x))
        self.ran_in.append(hidden.dtype)
        return self.second(hidden)


@accelerate
class Fast(Net):
    """Accelerated as a class."""


class Parent(nn.Module):
    def __init__(self, child: nn.Module) -> None:
        super().__init__()
        self.child = child

    def forward(self, x: Tensor) -> Any:
        return self.child(x)


class Pair(NamedTuple):
    left: Tensor
    right: Any


class Ordered(OrderedDict[str, Any]):
    """A mapping as Hugging Face's outputs are: a subclass of OrderedDict, with something of its own."""

    note = "own"


@dataclass
class Result:
    loss: Tensor
    more: Any = None


@dataclass(frozen=True)
class Frozen:
    loss: Tensor


class Shaped(nn.Module):
    """Gives its result in whatever container it is told to."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.shape = shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.inner(x))
