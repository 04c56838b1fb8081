"""`set_to_none=True`: no gradients between steps, and the parameters of a loop that sets them to zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS
from torchturbo.regions import _zeroing
from torchturbo.regions._steps import BEFORE_STEP

ZERO_GRAD = torch.optim.Optimizer.zero_grad.__wrapped__.__code__, nn.Module.zero_grad.__code__  # type: ignore[attr-defined]


def only(**options: Any) -> turbo:
    return turbo(Profile("only", **options))


class Branches(nn.Module):
    """Layers of which each batch reaches one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 1) for _ in range(2))

    def forward(self, x: Tensor, which: int) -> Tensor:
        result: Tensor = self.layers[which](x).sum()
        return result


def make() -> Branches:
    torch.manual_seed(0)
    return Branches()


def trained(by_module: bool, **options: Any) -> tuple[list[Tensor], list[Tensor | None], int]:
    """Parameters and gradients after some steps, and how many gradients there were before the last."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    with only(**{"accumulate": 1, **options}):
        for step in range(4):
            (model if by_module else optimizer).zero_grad(set_to_none=False)
            there = sum(each.grad is not None for each in model.parameters())
            model(torch.ones(2, 3) * step, 0 if step < 2 else 1).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return list(model.parameters()), [each.grad for each in model.parameters()], there


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"autocast": "fp16", "init_scale": 16.0}])
@pytest.mark.parametrize("by_module", [False, True])
def test_optimizers_and_what_comes_after_see_zeros(by_module: bool, options: dict[str, Any]) -> None:
    parameters, gradients, there = trained(by_module, **options)
    ours, zeros, gone = trained(by_module, set_to_none=True, **options)
    assert there > gone == 0
    assert all(map(torch.equal, ours, parameters))
    assert [each is None for each in zeros] == [each is None for each in gradients]
    assert all(torch.equal(a, b) for a, b in zip(zeros, gradients, strict=True) if a is not None and b is not None)


def test_what_comes_of_it_is_told_and_nothing_stays() -> None:
    told = SETTINGS["set_to_none"].told
    assert told is not None
    assert told() is None
    model = make()
    with only(set_to_none=True):
        model(torch.ones(1, 3), 0).backward()
        with only(set_to_none=False):
            model.zero_grad(set_to_none=False)
        assert model.layers[0].weight.grad is not None
        model.zero_grad(set_to_none=False)
        assert told() == "2 gradients were let go of that were to be set to zero"
        model.zero_grad()
    assert (torch.optim.Optimizer.zero_grad.__wrapped__.__code__, nn.Module.zero_grad.__code__) == ZERO_GRAD  # type: ignore[attr-defined]
    assert _zeroing._KEY not in BEFORE_STEP


def test_sparse_gradients_and_closures_are_left_alone() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    with only(set_to_none=True):
        table(torch.tensor([1])).sum().backward()
        table.zero_grad(set_to_none=False)
        assert table.weight.grad is not None
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(1, 3), 0).backward()

        def closure() -> float:
            optimizer.zero_grad(set_to_none=False)
            assert model.layers[0].weight.grad is not None
            return 0.0

        optimizer.step(closure)
