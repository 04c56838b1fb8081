"""A model that notes whether its forward, backward and step run under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.graph
import torch.optim.optimizer as optimizers
from torch import Tensor, nn

ENGINES: tuple[Any, ...] = (torch.autograd, torch.autograd.graph)


def under_autocast(device: str = "cpu") -> bool:
    return torch.is_autocast_enabled(device)


def in_place() -> list[object]:
    """Everything in torch that a region puts something into."""
    hooks = (optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks)
    called = [torch.backends.mha.get_fastpath_enabled]
    called += [torch.autocast_increment_nesting, torch.autocast_decrement_nesting]
    return [*(module._engine_run_backward for module in ENGINES), *(list(hook.items()) for hook in hooks), *called]


class Watched:
    """A model of one weight, and what its forward, backward and step saw."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        self.seen: dict[str, bool] = {}
        self.model = nn.Linear(4, 1)
        self.model.weight.register_hook(self.saw("backward"))
        self.optimizer = optimizer(self.model.parameters())
        self.optimizer.register_step_pre_hook(self.saw("step"))

    def saw(self, what: str, device: str = "cpu") -> Callable[..., None]:
        def note(*args: object) -> None:
            self.seen[what] = under_autocast(device)

        return note

    def loss(self) -> Tensor:
        self.seen["forward"] = under_autocast()
        result: Tensor = self.model(torch.ones(2, 4)).float().sum()
        return result

    def train(self) -> dict[str, bool]:
        self.seen = {}
        self.loss().backward()
        self.optimizer.step()
        self.seen["after"] = under_autocast()
        return self.seen


RIGHT = {"forward": True, "backward": False, "step": False, "after": True}
ALL_OFF = dict.fromkeys(RIGHT, False)
