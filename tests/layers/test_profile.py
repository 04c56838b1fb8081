"""Layers that are made slow, or large, on purpose are named first; and nothing is left behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchturbo import LayerCosts, profile_layers
from torchturbo.errors import OptionValueError, TargetError
from torchturbo.testing import assert_restores

SLOW = 0.08


class SlowForward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(SLOW)
        return x.sin()


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        time.sleep(SLOW)
        return gradient.clone()


class SlowBackward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Slow.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class Keeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wide = x.repeat(1, 1000)
        return wide.exp()[:, :8]


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = SlowForward()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)  # type: ignore[no-any-return]


def training(*layers: nn.Module) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), *layers, nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(4, 8)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(batch).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


@pytest.fixture(scope="module")
def slow() -> LayerCosts:
    """A model with one layer that is slow forward and one that is slow backward."""
    return profile_layers(training(SlowForward(), nn.ReLU(), SlowBackward(), Keeps()), steps=2)


def test_what_is_slow_forward_is_named(slow: LayerCosts) -> None:
    first = max(slow.layers, key=lambda each: each.forward_own)
    assert (first.name, first.kind, first.calls) == ("model.1", "SlowForward", 1)
    assert first.forward >= first.forward_own >= SLOW
    assert first.backward < SLOW


def test_what_is_slow_backward_is_named_though_it_is_no_operator_of_torch(slow: LayerCosts) -> None:
    first = max(slow.layers, key=lambda each: each.backward_own)
    assert (first.name, first.kind) == ("model.3", "SlowBackward")
    assert first.backward_own >= SLOW
    assert {each.name for each in slow.layers[:2]} == {"model.1", "model.3"}, "the costliest first"


def test_what_is_kept_is_counted_where_it_is_kept(slow: LayerCosts) -> None:
    kept = {each.name: each.kept_own for each in slow.layers}
    assert kept["model.4"] == 4 * 8000 * 4
    assert (kept["model.1"], kept["model.3"]) == (4 * 8 * 4, 0)
    assert kept["model.0"] == 4 * 8 * 4, "its input, and not its weights"
    assert slow["model"].kept == sum(kept.values())
    assert slow["model.0"].parameters_own == (8 * 8 + 8) * 4
    assert (slow["model"].parameters, slow["model"].parameters_own) == ((8 * 8 + 8 + 8 + 1) * 4, 0)


def test_what_is_around_has_the_time_of_what_is_within(slow: LayerCosts) -> None:
    whole = slow["model"]
    assert whole.forward >= slow["model.1"].forward
    assert whole.backward >= SLOW > whole.backward_own
    assert whole.seconds == pytest.approx(sum(each.own for each in slow.layers), rel=0.3)  # medians of each


def test_the_shares_are_the_whole_step(slow: LayerCosts) -> None:
    assert sum(share.percent for share in slow.shares) == pytest.approx(100)
    assert [share.part for share in slow.shares] == ["forward", "backward", "optimizer", "other"]
    assert sum(share.seconds for share in slow.shares) == pytest.approx(slow.profiled, rel=0.3)
    assert slow.clock == "CPU"
    assert "aten::addmm" in {each.name for each in slow.operators}
    with pytest.raises(KeyError, match=r"there is no layer 'model.33': did you mean 'model.3'"):
        slow["model.33"]


def test_the_input_is_told(slow: LayerCosts) -> None:
    class Slow(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Tensor:
            time.sleep(SLOW)
            return torch.ones(3)

    model, data = nn.Linear(3, 1), Slow()

    def step() -> None:
        for batch in torch.utils.data.DataLoader(data, batch_size=2):
            model(batch).sum().backward()

    found = {share.part: share for share in profile_layers(step, steps=1).shares}
    assert found["input"].seconds >= 2 * SLOW


def test_what_a_checkpoint_computes_again_is_of_its_layer_and_backward() -> None:
    found = profile_layers(training(Checkpointed()), steps=1)
    inner = found["model.1.inner"]
    assert inner.forward >= SLOW
    assert inner.backward >= SLOW
    assert found["model.1"].kept_own == 4 * 8 * 4, "what goes in, and nothing of what is within"


def test_everything_is_as_it_was(tmp_path: Path) -> None:
    step = training()
    model = next(its.cell_contents for its in step.__closure__ or () if isinstance(its.cell_contents, nn.Module))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine, call, environment = (
        torch.autograd._engine_run_backward,
        nn.Module._wrapped_call_impl.__code__,
        dict(os.environ),
    )
    path = tmp_path / "trace.json"
    with assert_restores():
        profile_layers(step, "exact", steps=1, trace=path, num_threads=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.autograd._engine_run_backward is engine
    assert nn.Module._wrapped_call_impl.__code__ is call
    assert dict(os.environ) == environment
    assert not torch._C._autograd._profiler_enabled()
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert {"layer: model", "layer: model.0", "the step", "backward"} <= names


def test_a_step_that_raises_leaves_nothing_and_comes_out() -> None:
    runs = []

    def step() -> None:
        runs.append(1)
        if torch._C._autograd._profiler_enabled():
            raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        profile_layers(step)
    assert (runs, torch._C._autograd._profiler_enabled()) == ([], False)


def test_modules_that_the_step_makes_have_names_too() -> None:
    found = profile_layers(lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))(torch.ones(1, 2)).sum(), steps=1)
    assert {each.name for each in found.layers} == {"Sequential", "Linear", "Linear#2"}


def test_compiled_modules_are_one_piece() -> None:
    found = profile_layers(training(nn.ReLU()), "exact", steps=1, compile={"backend": "aot_eager"})
    assert [(each.name, each.compiled) for each in found.layers] == [("model", True)]
    assert found.notes[0] == "model: compiled code is one piece, and of the modules within it nothing is known"
    assert found["model"].backward > 0
    assert found["model"].kept_own > 0


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"steps": 0}, OptionValueError, "steps=0: expected how many are to be measured, as steps=3"),
        ({"trace": "nowhere/at/all.json"}, OptionValueError, "there is no folder nowhere/at to write it into"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(wrong: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        profile_layers(pytest.fail, **wrong)


def test_there_is_one_profiler() -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        with pytest.raises(TargetError, match="a profiler of torch's runs here already"):
            profile_layers(lambda: None)


def test_what_a_step_with_torch_func_keeps_is_not_counted_and_a_note_says_so() -> None:
    model, x = nn.Linear(3, 3), torch.randn(2, 3)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()  # type: ignore[no-any-return]

    with assert_restores():
        costs = profile_layers(lambda: torch.func.grad(loss)(dict(model.named_parameters())), steps=1)
    assert any("within torch.func" in note for note in costs.notes)
    assert costs.kept_alone == 0
    assert all(layer.kept == 0 for layer in costs.layers)


def test_what_a_step_raises_of_hooks_comes_out() -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        profile_layers(step, steps=1)
