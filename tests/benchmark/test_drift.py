"""How far numbers are from those of a reference: against what is computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fresh import Fresh
from torchturbo import turbo
from torchturbo._benchmark.contenders import contender
from torchturbo._benchmark.drift import drift_of
from torchturbo._benchmark.numbers import Drifts
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


COMPILED = """
import warnings
from contextlib import nullcontext

import torch
from torch import nn

from torchturbo import turbo
from torchturbo._benchmark.contenders import contender
from torchturbo._benchmark.drift import drift_of
from torchturbo._benchmark.numbers import Drifts
from torchturbo._replay.here import Here
from torchturbo.regions._compiled import _kept
from torchturbo.regions.compiling import compilations

warnings.simplefilter("ignore")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1))
batch = torch.randn(16, 8)


def step():
    return model(batch).square().mean()


with turbo("exact", compile=True):
    step()
entry = torch._inductor.config._config["fallback_random"]
before = {key: dict(targets) for key, (_, targets) in _kept.items()}, len(compilations()), str(entry)
here = Here(step)
drifts = Drifts(here, contender("exact"), here.find(nullcontext()))
compiled = contender("exact", {"compile": True})
assert drifts.of(compiled).largest < 1e-5
assert ({key: dict(targets) for key, (_, targets) in _kept.items()}, len(compilations()), str(entry)) == before
assert not torch._inductor.config.fallback_random
# With the masks that it draws by itself, nothing else is seen.
assert drift_of(here.watched(compiled.around), drifts.reference).largest > 0.01
"""


def test_compiled_code_is_compared_with_the_draws_of_eager_code(fresh_python: Fresh) -> None:
    # In a process of its own: inductor leaves threads running.
    done = fresh_python(COMPILED)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_noise_is_of_another_order_whatever_the_number_of_threads(threads: int) -> None:
    with turbo("exact", num_threads=threads):
        here = Here(_training())
        noise = Drifts(here, contender("exact"), here.find(nullcontext())).noise()
    assert noise.largest is not None
    assert noise.largest < 1e-5


def test_steps_that_are_left_out_are_told() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step() -> float:
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 4)) * 1e4).square().sum()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    found = _drift(step, turbo("exact", autocast="fp16"))
    assert found.parameters is None
    assert "its optimizers took 0 steps, and the reference's 1" in found.note


@pytest.mark.filterwarnings("ignore::torchturbo.errors.AccumulationWarning")
def test_what_accumulates_is_not_compared_in_its_gradients() -> None:
    here = Here(_training())
    drifts = Drifts(here, contender("exact"), here.find(nullcontext()))
    found = drifts.of(contender("exact", {"accumulate": 4}))
    assert (found.gradients, found.parameters, found.loss) == (None, None, 0.0)
    assert "accumulate=4" in found.note


@pytest.mark.parametrize("by_name", [False, True])
def test_gradients_of_a_step_with_a_closure_are_those_that_the_closure_has_made(by_name: bool) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(4, 4)

    def step() -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(batch).square().mean() * (3.0 if torch.is_anomaly_enabled() else 1.0)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure=closure) if by_name else optimizer.step(closure)

    step()  # its gradients are there when the next one begins
    assert _drift(step, turbo("debug")).gradients == pytest.approx(2.0)
