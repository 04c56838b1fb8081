"""How far numbers are from those of a reference: against what is computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchturbo import turbo
from torchturbo._benchmark.drift import drift_of
from torchturbo._replay.here import Here


def _training(scale: float = 1.0) -> Callable[[], float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = torch.randn(4, 8)

    def step() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(batch).square().mean() * (scale if torch.is_anomaly_enabled() else 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def _drift(step: Callable[..., Any], block: AbstractContextManager[Any]) -> Any:
    here = Here(step)
    return drift_of(here.watched(block), here.watched(nullcontext()))


def test_the_same_bits_are_no_drift() -> None:
    drift = _drift(_training(), nullcontext())
    assert drift.same
    assert (drift.loss, drift.gradients, drift.outputs, drift.parameters) == (0, 0, 0, 0)
    assert drift.largest == 0


def test_each_part_is_what_it_is_by_hand() -> None:
    """With anomaly detection on, the step gives twice the loss, and so twice the gradients and the change."""
    drift = _drift(_training(scale=2.0), turbo("exact", anomaly=True))
    assert not drift.same
    assert drift.loss == pytest.approx(1.0)
    assert drift.gradients == pytest.approx(1.0)
    assert drift.parameters == pytest.approx(1.0)
    assert drift.outputs == 0
    assert drift.largest == pytest.approx(1.0)


def test_nan_is_as_far_as_can_be() -> None:
    drift = _drift(_training(scale=math.nan), _with_anomaly_mode())
    assert math.isnan(drift.loss)
    assert math.isnan(drift.largest)


def _with_anomaly_mode() -> AbstractContextManager[Any]:
    """Anomaly detection that does not raise at a NaN."""
    return torch.autograd.set_detect_anomaly(True, check_nan=False)


def test_bf16_is_off_by_what_bf16_rounds_to() -> None:
    drift = _drift(_training(), turbo("exact", autocast="bf16"))
    assert 0 < drift.outputs < 0.03
    assert 0 < drift.gradients < 0.1


def test_what_one_run_does_alone_is_told() -> None:
    def step() -> None:
        model = nn.Linear(2, 2)
        for _ in range(2 if torch.is_anomaly_enabled() else 1):
            model(torch.ones(1, 2))

    drift = _drift(step, turbo("exact", anomaly=True))
    assert not drift.same
    assert "do not do the same things" in drift.note


def test_a_step_without_numbers_has_none() -> None:
    drift = _drift(lambda: "done", nullcontext())
    assert (drift.loss, drift.gradients, drift.outputs, drift.parameters, drift.largest) == (None,) * 5
