"""Atomic additions on a GPU are found, and so is what makes them deterministic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.reproducible.test_put_back import same
from torchturbo import check_reproducible

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU"),
]


class Scattered(nn.Module):
    """Adds many rows up in few places, with the additions of many threads in whatever order they come."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 64)
        self.norm = nn.BatchNorm1d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.dropout(self.norm(self.linear(x)), 0.1)
        places = torch.arange(len(x), device=x.device) % 3
        return torch.zeros(3, 64, device=x.device).index_add_(0, places, rows)


def training() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], float]]:
    torch.manual_seed(0)
    model = Scattered().cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(20_000, 16, device="cuda")

    def step() -> float:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    return model, optimizer, step


def test_atomic_additions_are_found_and_cured() -> None:
    model, optimizer, step = training()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = torch.cuda.get_rng_state()
    found = check_reproducible(step, price_seconds=2)
    assert found.difference is not None, str(found)
    assert (found.difference.kind, found.difference.name) == ("output", "model")
    assert found.advice[0].startswith("It is identical in 3 runs under deterministic=True;"), str(found)
    assert found.price is not None
    assert same(before, dict(model.state_dict()))
    assert torch.equal(stream, torch.cuda.get_rng_state())
    assert not optimizer.state
    assert model.linear.weight.grad is None  # type: ignore[union-attr]


def test_under_the_profile_it_is_identical() -> None:
    found = check_reproducible(training()[2], 3, profile="reproducible", price_seconds=0)
    assert found, str(found)
