"""What an error says that switches would have freed: counted by copies without memory, and nothing is changed by it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.fx.experimental.symbolic_shapes  # now, since importing sympy changes the filters of warnings
import torch.nn.functional as F
from torch import Tensor, nn

from torchturbo import accelerate, memory_plan
from torchturbo._memory import measure
from torchturbo._words import size
from torchturbo.testing import injected_oom
from torchturbo.testing._oom import At

pytestmark = pytest.mark.usefixtures("cpu_with_bf16")
CALLS: list[int] = []
SCALE = nn.Parameter(torch.ones(8))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        CALLS.append(len(x))
        result: Tensor = x + F.dropout(self.down(torch.tanh(self.up(x))), 0.1)
        return result


class Looking(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if x.sum().item() > 0 else 2)


def blocks(kind: type[Block] = Block) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(kind() for _ in range(6)))


def step(model: nn.Module, batch: Any, opt: torch.optim.Optimizer) -> Tensor:
    opt.zero_grad()
    x, y = batch.values() if isinstance(batch, dict) else batch
    loss = (model(x * SCALE) - y).square().mean()
    loss.backward()
    opt.step()
    return loss


def failed(call: Any, batch: Any, at: At, model: nn.Module | None = None) -> list[str]:
    model = blocks() if model is None else model
    opt = torch.optim.AdamW(model.parameters())
    filters = list(warnings.filters)
    with injected_oom(0, at=at), pytest.raises(torch.OutOfMemoryError) as found:
        call(model, batch, opt)
    assert warnings.filters == filters
    SCALE.grad = None
    return [note.removeprefix("torchturbo: ") for note in found.value.__notes__]


BATCH = torch.ones(256, 8), torch.ones(256, 8)


@pytest.mark.parametrize(
    ("at", "batch"),
    [("forward", BATCH), ("backward", BATCH), ("optimizer", {"x": BATCH[0], "y": BATCH[1]})],
    ids=["forward", "backward", "optimizer"],
)
def test_what_switches_would_have_freed_is_what_a_plan_says(at: At, batch: Any) -> None:
    model = blocks()
    opt = torch.optim.AdamW(model.parameters())
    plan = memory_plan(model, BATCH[0], opt, loss=torch.mean)
    saved = plan["now"].peak - plan["checkpoint"].peak
    assert saved > 100_000
    raising = failed(accelerate(profile="exact", on_oom="raise")(step), batch, at, model)
    text = f"would have freed memory: checkpoint=True: {size(saved)} of {size(plan['now'].peak)} at once"
    assert any(note.startswith(text) for note in raising)
    splitting = failed(accelerate(profile="exact", on_oom="split")(step), batch, at, model)
    assert splitting[1].startswith(text)
    assert splitting[-1].endswith("Everything is as it was before the call")


def test_what_is_in_force_in_the_step_is_not_said_to_free_more() -> None:
    for options in ({"autocast": "bf16"}, {"checkpoint": True}):
        notes = failed(accelerate(profile="exact", on_oom="raise", **options)(step), BATCH, "forward")
        told = [note.split(": ")[1] for note in notes if note.startswith("would")]
        assert {"autocast='bf16'", "checkpoint=True"} - {each.split(": ")[0] for each in told} == {
            f"{name}={value!r}" for name, value in options.items()
        }


def test_it_is_counted_once_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    real = measure.estimate
    monkeypatch.setattr(measure, "estimate", lambda *given: counted.append(given) or real(*given))
    model, call = blocks(), accelerate(profile="exact", on_oom="raise")(step)
    drawn = []
    for _ in range(2):
        CALLS.clear()
        torch.manual_seed(0)
        notes = failed(call, BATCH, "forward", model)
        assert any("checkpoint=True" in note for note in notes)
        assert CALLS == [256] * 6
        drawn.append(torch.get_rng_state())
        assert SCALE.grad is None
    assert torch.equal(*drawn)
    assert len(counted) == 1


def test_what_cannot_be_counted_is_told_as_it_would_be_and_takes_no_memory() -> None:
    for at in ("forward", "backward"):
        model = blocks(Looking)
        CALLS.clear()
        notes = failed(accelerate(profile="exact", on_oom="raise")(step), BATCH, at, model)
        assert notes[1].startswith("would have freed memory: on_oom='split': half of the activations, which are not")
        assert CALLS == [256] * 6


def test_counting_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchturbo._oom.freed.SECONDS", 0.0)
    notes = failed(accelerate(profile="exact", on_oom="raise")(step), BATCH, "forward")
    assert "which are not counted here" in notes[-1]


def test_a_plan_leaves_no_gradient_in_what_the_loss_has_of_its_own() -> None:
    own = nn.Linear(8, 1)
    memory_plan(blocks(), BATCH[0], loss=lambda outputs: own(outputs * SCALE).mean())
    assert own.weight.grad is None
    assert SCALE.grad is None
