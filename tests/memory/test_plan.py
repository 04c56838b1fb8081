"""`memory_plan`: the bytes that a step really takes, found without them, and nothing of the user's changed."""

from __future__ import annotations

import copy
import random
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.fx.experimental.symbolic_shapes  # now, since importing sympy changes the filters of warnings
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tests.pretended import cpu_with_bf16
from torchturbo import Profile, memory_plan, turbo
from torchturbo._models.gpt import Net, Size
from torchturbo._replay.memory import allocations
from torchturbo.errors import TargetError
from torchturbo.testing import pretend_hardware

__all__ = ["cpu_with_bf16"]

pytestmark = pytest.mark.usefixtures("cpu_with_bf16")
SIZE = Size(width=32, depth=3, heads=2, length=32, batch=4)


def losses(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten())


def gpt(size: Size = SIZE) -> tuple[Net, tuple[Tensor, Tensor], torch.optim.AdamW]:
    torch.manual_seed(0)
    model = Net(size)
    symbols = torch.randint(256, (size.batch, size.length))
    return model, (symbols, symbols.clone()), torch.optim.AdamW(model.parameters(), lr=1e-3)


def test_it_says_what_a_real_step_takes() -> None:
    model, batch, opt = gpt()
    plan = memory_plan(model, batch, opt, loss=losses)
    weights = sum(each.nbytes for each in model.parameters())
    for name, options in {"now": {"accumulate": 1}, "checkpoint": {"checkpoint": True}}.items():
        with turbo(Profile("only", **options)):
            saved: dict[int, tuple[int, Tensor]] = {}

            def keep(tensor: Tensor, saved: Any = saved) -> Tensor:
                storage = tensor.untyped_storage()
                saved[storage.data_ptr()] = storage.nbytes(), tensor.detach()
                return tensor

            with saved_tensors_hooks(keep, lambda tensor: tensor):
                losses(model(batch[0]), batch[1]).backward()
            opt.step()
            opt.zero_grad()
            with allocations() as found:
                found.mark()
                losses(model(batch[0]), batch[1]).backward()
                opt.step()
            opt.zero_grad()
        theirs = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *batch)}
        kept = sum(size for place, (size, _) in saved.items() if place not in theirs)
        row = plan[name]
        assert row.weights == row.gradients == weights
        assert row.optimizer == sum(its.nbytes for state in opt.state.values() for its in state.values())
        assert row.activations == pytest.approx(kept, rel=0.1)
        assert row.peak == pytest.approx(found.growth["cpu"] + row.weights + row.optimizer, rel=0.1)
    assert plan["checkpoint"].activations < plan["now"].activations * 0.62
    assert plan["autocast"].activations < plan["now"].activations
    assert plan["gradients kept"].peak == plan["now"].peak + weights
    assert plan["low_memory"].peak == plan["checkpoint"].peak


def test_nothing_of_the_users_is_changed() -> None:
    model, batch, opt = gpt(Size(width=16, depth=1, heads=2, length=8, batch=2))
    model.register_buffer("counter", torch.zeros(3))
    losses(model(batch[0]), batch[1]).backward()
    opt.step()
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1)
    calls: list[int] = []
    model.norm.register_forward_hook(lambda *_: calls.append(random.randint(0, 9)))
    opt.register_step_pre_hook(lambda *_: calls.append(0))
    before = copy.deepcopy((model.state_dict(), opt.state_dict(), [each.grad for each in model.parameters()]))
    chance, python = torch.get_rng_state(), random.getstate()
    with turbo(Profile("only", autocast="fp16", accumulate=2)) as active:
        plan = memory_plan(model, batch, opt, loss=losses)
        assert active is not None
        assert plan["now"].settings["autocast"] == "fp16"
    after = model.state_dict(), opt.state_dict(), [each.grad for each in model.parameters()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), chance)
    assert random.getstate() == python
    assert calls == []
    assert schedule.last_epoch == 0
    assert plan.notes == ("hooks of modules were left out: what they do could not be taken back",)


def test_a_model_that_does_not_fit() -> None:
    with torch.device("meta"):
        model = Net(Size(width=8192, depth=1, heads=64, length=64, batch=1))
    batch = (torch.zeros(1, 64, dtype=torch.long),) * 2
    plan = memory_plan(model, batch, torch.optim.Adam(model.parameters()), loss=losses)
    assert plan["now"].weights > 3 * 2**30
    assert plan["now"].optimizer == pytest.approx(2 * plan["now"].weights, rel=1e-3)
    assert next(model.parameters()).device.type == "meta"


class Outputs(NamedTuple):
    loss: Tensor


class Looking(nn.Module):
    """Looks at numbers, which what has no memory has none of."""

    def __init__(self, give: Callable[[Tensor], Any] = lambda loss: loss) -> None:
        super().__init__()
        self.layer, self.give = nn.Linear(4, 4), give

    def forward(self, x: Tensor) -> Any:
        loss = self.layer(x).sum()
        return self.give(loss if loss.item() > 0 else -loss)


def test_where_numbers_are_looked_at_the_step_is_real() -> None:
    model = Looking(lambda loss: {"loss": loss})
    plan = memory_plan(model, {"x": torch.ones(2, 4)}, torch.optim.LBFGS(model.parameters()))
    assert plan["now"].weights == plan["now"].gradients == 80
    first, second = plan.notes
    assert first.startswith("the step was taken by real copies, in real memory, since it cannot be taken by copies")
    assert second.startswith("a step of LBFGS could not be taken, and is not in it: TypeError")
    assert memory_plan(Looking(Outputs), [torch.ones(2, 4)])["now"].optimizer == 0


def test_what_does_nothing_here_says_why() -> None:
    with pretend_hardware("cpu"):
        plan = memory_plan(nn.Conv2d(1, 1, 3), torch.ones(1, 1, 8, 8), loss=torch.sum)
    assert [row.name for row in plan.rows] == [
        "now", "checkpoint", "autocast", "channels_last", "gradients kept", "low_memory"
    ]  # fmt: skip
    assert "emulation" in str(plan["autocast"].refused)
    assert "no effect" in str(plan)


def test_errors_say_what_to_write() -> None:
    with pytest.raises(TargetError, match=r"and the model returns a tensor of shape \(2, 3\): give loss="):
        memory_plan(nn.Linear(3, 3), torch.ones(2, 3))
    with pytest.raises(TargetError, match="loss= makes a str"):
        memory_plan(nn.Linear(3, 3), torch.ones(2, 3), loss=lambda outputs: "one")
    with pytest.raises(TargetError, match="needs a module, and got a str"):
        memory_plan("model", torch.ones(2, 3))  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=r"cannot take a step \(now\)"):
        memory_plan(nn.Linear(3, 3), torch.ones(2, 7), loss=torch.sum)
    with torch.device("meta"), pytest.raises(TargetError, match=r"cannot take a step \(now\): Data"):
        memory_plan(Looking(), torch.ones(2, 4, device="cpu"))


def test_its_forms() -> None:
    plan = memory_plan(nn.Linear(3, 3), torch.ones(2, 3), loss=torch.sum)
    assert plan.to_dict()["rows"][0]["name"] == "now"
    assert "activations" in str(plan)
    assert "<svg" in plan.to_html()
    assert repr(plan) == "<MemoryPlan: Linear, 5 rows>"
    with pytest.raises(KeyError, match="did you mean 'checkpoint'"):
        plan["checkpont"]


@dataclass
class _Pair:
    x: Tensor
    y: Tensor


class _OfPairs(nn.Linear):
    def forward(self, pair: Any = None, **named: Tensor) -> Tensor:
        named = named or vars(pair)
        return (super().forward(named["x"]) - named["y"]).square().mean()


def test_a_batch_is_whatever_the_model_takes() -> None:
    """Its tensors take no memory, and are counted, in containers and objects that torch knows nothing of too."""
    model = _OfPairs(4, 4)
    batch = {"x": torch.ones(8, 4), "y": torch.ones(8, 4)}
    plans = [memory_plan(model, its) for its in (batch, UserDict(batch), _Pair(**batch))]
    assert [plan.batch for plan in plans] == [256] * 3
    assert len({(plan["now"].activations, plan["now"].peak, plan.notes) for plan in plans}) == 1
    with pytest.raises(TargetError, match=r"If the batch is a pair \(inputs, targets\), give loss="):
        memory_plan(nn.Linear(4, 4), (batch["x"], batch["y"]))


def test_an_optimizer_of_another_model_is_told_of() -> None:
    its, other = nn.Linear(4, 4), nn.Linear(4, 4)
    told = "the optimizer has none of the model's parameters, so that it has no state here"
    notes = [memory_plan(its, torch.ones(8, 4), torch.optim.SGD(of.parameters()), loss=torch.mean).notes
             for of in (other, its)]  # fmt: skip
    assert notes == [(told,), ()]
