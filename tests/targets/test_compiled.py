"""Accelerated targets that compile: a module in place, a function itself or the modules that it calls."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchturbo import accelerate, restore
from torchturbo.regions.compiling import compilations

pytestmark = pytest.mark.usefixtures("fresh_compiler")

EAGER = {"backend": "eager"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.layers(x)}


def count() -> int:
    """Compilations so far, of everything."""
    return sum(each.count for each in compilations())


def by_hand(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        scores: Tensor = model(x)["scores"]
    return scores.float()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    optimizer.zero_grad()
    loss = model(x)["scores"].float().square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def evaluate(model: nn.Module, x: Tensor) -> float:
    model.eval()
    try:
        return float(model(x)["scores"].detach().float().square().mean())
    finally:
        model.train()


@pytest.mark.parametrize("by", ["instance", "class"])
def test_a_module_compiles_in_place(by: str) -> None:
    model, reference, x = Net(), Net(), torch.randn(5, 8)
    reference.load_state_dict(model.state_dict())
    keys, before = list(model.state_dict()), count()
    target: Any = model if by == "instance" else Net
    assert accelerate(target, compile=EAGER) is target
    try:
        assert count() == before  # at the first call, and not before
        assert torch.equal(model(x)["scores"], by_hand(reference, x) if by == "instance" else model(x)["scores"])
        assert count() == before + 1
        assert type(model) is Net
        assert list(model.state_dict()) == keys
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        for other in (copied, pickled):
            now = count()
            assert torch.equal(other.eval()(x)["scores"], other(x)["scores"])
            assert count() == now + 1
    finally:
        restore(target)
    now = count()
    model(x)
    assert count() == now


def test_a_compiled_module_trains_as_one_by_hand() -> None:
    torch.manual_seed(0)
    model, x = Net(), torch.randn(5, 8)
    reference = copy.deepcopy(model)
    accelerate(model, compile=EAGER)
    ours = torch.optim.SGD(model.parameters(), lr=0.1)
    theirs = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(10):
        loss = step(model, ours, x)
        theirs.zero_grad()
        expected = by_hand(reference, x).square().mean()
        expected.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        theirs.step()
        assert loss == expected.item()
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_training_and_evaluation_in_turn_compile_nothing_anew() -> None:
    model, x = Net(), torch.randn(5, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train = accelerate(step, compile=EAGER)
    test = accelerate(evaluate, profile="inference", compile=EAGER)
    whole = accelerate(copy.deepcopy(model), compile=EAGER)
    for _ in range(2):
        train(model, optimizer, x)
        test(model, x)
        whole(x)
    warm = count()
    assert warm > 0
    for _ in range(50):
        train(model, optimizer, x)
        test(model, x)
        whole(x)
    assert count() == warm


def test_a_pure_function_is_compiled_itself() -> None:
    @accelerate(profile="exact", compile=EAGER)
    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).sin() + a

    a = torch.randn(4, 4)
    before = count()
    results = [mixed(a, a) for _ in range(4)]
    assert all(torch.equal(result, (a @ a).sin() + a) for result in results)
    assert count() == before + 1
    assert compilations()[-1].name.endswith("mixed")


def test_a_function_that_trains_is_not() -> None:
    model, x = Net(), torch.randn(5, 8)
    train = accelerate(step, compile=EAGER)
    for _ in range(3):
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), x)
    assert compilations()[-1].name == "Net"
    assert "step" not in {each.name for each in compilations()}


@pytest.mark.parametrize("method", ["bound", "partial", "object"])
def test_what_has_no_code_of_its_own_compiles_what_it_calls(method: str) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = Net()

        def __call__(self, x: Tensor) -> Tensor:
            scores: Tensor = self.model(x)["scores"]
            return scores

    trainer, x, before = Trainer(), torch.randn(5, 8), count()
    targets: dict[str, Any] = {
        "bound": trainer.__call__,
        "partial": functools.partial(trainer, x),
        "object": trainer,
    }
    accelerated = accelerate(targets[method], compile=EAGER)
    for _ in range(3):
        accelerated() if method == "partial" else accelerated(x)
    assert count() == before + 1
    assert compilations()[-1].name == "Net"
