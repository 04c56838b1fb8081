"""What only a GPU can show of measuring: its clock, its memory as it was, and that what is faster there is found."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.laws.look import differences, look
from torchturbo import benchmark, tune, turbo

pytestmark = pytest.mark.gpu


def _training(width: int = 2048) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> torch.Tensor:
        batch = torch.randn(4096, width, device="cuda")
        optimizer.zero_grad()
        loss = model(batch).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step


def test_large_products_are_faster_in_bf16_and_drift_as_bf16_does() -> None:
    _, step = _training()
    found = benchmark(step, ("fast", "exact"), budget=10)
    assert found["fast"].verdict == "faster"
    assert found["exact"].verdict == "no difference"
    drift = found["fast"].drift
    assert drift is not None
    assert drift.within(0.05)


def test_training_goes_on_with_the_same_bits() -> None:
    kept = []
    for measures in (False, True):
        model, step = _training(256)
        with turbo("reproducible"):
            losses = [step().item() for _ in range(3)]
            if measures:
                before = look()
                benchmark(step, "fast", budget=1)
                assert differences(before, look()) == ""
            losses += [step().item() for _ in range(3)]
        kept.append((losses, copy.deepcopy(model.state_dict())))
    (plain, weights), (measured, others) = kept
    assert plain == measured
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_tuning_finds_something_faster_within_the_tolerance() -> None:
    _, step = _training()
    found = tune(step, budget="60 s", write=False)
    assert found.tuning.speedup is not None
    assert found.tuning.speedup.low > 1.2
    assert found.tuning.drift is not None
    assert found.tuning.drift.within(0.05)


def test_a_candidate_without_memory_is_left_out_and_the_rest_goes_on() -> None:
    _, step = _training(256)

    def greedy() -> torch.Tensor:
        if torch.is_anomaly_enabled():
            torch.empty(2**60, dtype=torch.uint8, device="cuda")
        return step()

    found = tune(greedy, budget="20 s", write=False, also=[{"anomaly": True}])
    assert found.tuning.tried[0].outcome == "failed"
    assert "OutOfMemoryError" in found.tuning.tried[0].why
