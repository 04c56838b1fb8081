"""Models and backends for the tests of compiled regions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchturbo import Profile

BARE = Profile("bare")
X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Inner(nn.Module):
    """A part with statistics that a second run would change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x).relu()
        return result


class Net(nn.Module):
    """A model of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), Inner()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(self.first(x))
        return result


class Broken(nn.Module):
    """A model in which the graph breaks, before a part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), Inner()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        result: Tensor = self.inner(x)
        return result


class Backend:
    """A backend that counts its graphs, and notes what is in each."""

    def __init__(self) -> None:
        self.graphs: list[set[str]] = []

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs.append({node.name for node in graph.graph.nodes})
        forward: Callable[..., Any] = graph.forward
        return forward

    @property
    def options(self) -> dict[str, object]:
        """What `compile` takes."""
        return {"backend": self}


class Refusing(Backend):
    """A backend that refuses every graph."""

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        super().__call__(graph, inputs)
        raise RuntimeError("no kernels today")


def load_compiler() -> None:
    """Loads Dynamo and uses it once, so that what this changes in Python is not taken for what a test has left.

    Nothing more of the compiler, whose threads would keep later tests from forking.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))


def steps(module: nn.Module, count: int = 2) -> list[Tensor]:
    """Some steps of training, and an evaluation: losses, weights, statistics."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(count):
        module.train()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(X), X)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    module.eval()
    with torch.no_grad():
        losses.append(module(X))
    return [*losses, *(value.detach().clone() for value in module.state_dict().values())]
