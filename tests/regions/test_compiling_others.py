"""What somebody else is at work on, and what compiling would change without a word, runs as it is."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.regions.compiled import BARE, Backend
from torchturbo import accelerate, turbo
from torchturbo.errors import CompileWarning, TargetError
from torchturbo.regions import _compiler

# torch's own warning about its own code: Dynamo looks at the gradient of every tensor that crosses a break in a graph.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]
X = torch.ones(2, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.mark.parametrize("by", ["region", "module"])
def test_hooks_that_come_and_go_are_heeded(by: str, backend: Backend) -> None:
    net, expected = Net(), None
    if by == "module":
        accelerate(net, profile=BARE, compile=backend.options)

    def call() -> Tensor:
        with turbo(BARE, compile=backend.options if by == "region" else False):
            result: Tensor = net(X)
        return result

    expected = call()
    seen: list[str] = []
    handles = [
        net.register_forward_pre_hook(lambda module, args: seen.append("before")),
        net.register_forward_hook(lambda module, args, output: output * 0),
    ]
    assert torch.equal(call(), torch.zeros_like(expected))
    assert seen == ["before"]
    for handle in handles:
        handle.remove()
    assert torch.equal(call(), expected)
    assert seen == ["before"]


def test_the_parts_of_a_module_with_hooks_are_compiled(backend: Backend) -> None:
    net = Net()
    net.register_forward_hook(lambda module, args, output: None)
    with turbo(BARE, compile=backend.options):
        net(X)
        net(X)
    assert len(backend.graphs) == 2


def test_a_forward_that_is_replaced_is_the_one_that_runs(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    with turbo(BARE, compile=backend.options):
        net(X)
        with monkeypatch.context() as patched:
            patched.setattr(Net, "forward", lambda self, x: x * 0 + 5)
            assert (net(X) == 5).all()
        assert not (net(X) == 5).all()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("by", ["region", "module"])
def test_checkpoints_train(by: str, reentrant: bool) -> None:
    compiled = {"backend": "aot_eager"}
    gradients = []
    for block in (turbo(BARE), turbo(BARE, compile=compiled if by == "region" else False)):
        torch.manual_seed(0)
        net, x = Net(), X.clone().requires_grad_()
        if by == "module" and gradients:
            accelerate(net, profile=BARE, compile=compiled)
        with block:
            checkpoint(net, x, use_reentrant=reentrant).sum().backward()
        gradients.append(net.first.weight.grad)
    assert gradients[0] is not None
    assert torch.equal(gradients[0], gradients[1])


class CheckpointOfTheirOwn(torch.autograd.Function):
    """As large models bring with them."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.run(x)
        torch.autograd.backward(y, grad)
        return None, x.grad


def test_checkpoints_of_others_run_twice_alike(backend: Backend) -> None:
    net = Net()
    with turbo(BARE, compile=backend.options):
        CheckpointOfTheirOwn.apply(net, X.clone().requires_grad_()).sum().backward()
        assert not backend.graphs
        with torch.no_grad():
            net(X)
        assert len(backend.graphs) == 1


OWN = random.Random(0)


def with_numpy(x: Tensor) -> Tensor:
    return x * float(np.random.randn())


def with_a_generator_of_its_own(x: Tensor) -> Tensor:
    return x * OWN.random()


def with_pythons_generator(x: Tensor) -> Tensor:
    return x * random.random()


def through_another(x: Tensor) -> Tensor:
    return with_numpy(x) + 1


def with_an_import(x: Tensor) -> Tensor:
    from numpy.random import randn

    return x * float(randn())


class Noise:
    @staticmethod
    def drawn() -> float:
        return OWN.random()


def through_a_class(x: Tensor) -> Tensor:
    return x * Noise.drawn()


IMPURE = (
    with_numpy,
    with_a_generator_of_its_own,
    with_pythons_generator,
    through_another,
    with_an_import,
    through_a_class,
)


@pytest.mark.parametrize("function", IMPURE)
def test_functions_that_draw_numbers_elsewhere_draw_the_same(function: Callable[..., Any], backend: Backend) -> None:
    def draws(called: Callable[..., Any]) -> list[float]:
        np.random.seed(0)
        OWN.seed(0)
        random.seed(0)
        return [called(X)[0, 0].item() for _ in range(4)]

    drawn = [draws(function)]
    with pytest.warns(CompileWarning, match=rf"{function.__name__} is not compiled: .* itself because of \w+") as told:
        drawn.append(draws(accelerate(function, profile=BARE, compile=backend.options)))
    assert len(told) == 1
    assert told[0].filename == __file__
    assert drawn[0] == drawn[1]
    assert not backend.graphs
    assert len(set(drawn[0])) == 4


def test_a_cache_stays_one(backend: Backend) -> None:
    calls = []

    @accelerate(profile=BARE, compile=backend.options)
    @functools.lru_cache
    def table(size: int) -> Tensor:
        calls.append(size)
        return torch.arange(size)

    with pytest.warns(CompileWarning, match="what it is, _lru_cache_wrapper"):
        assert len({id(table(3)) for _ in range(4)}) == 1
    assert calls == [3]


def test_what_torch_has_compiled_is_not_accelerated_over() -> None:
    with pytest.raises(TargetError, match="accelerate that module itself, with compile=True"):
        accelerate(torch.compile(Net(), backend="eager"))


def test_tracers_are_refused() -> None:
    class Mine(Net):
        pass

    accelerate(Mine)
    with pytest.raises(TargetError, match=r"torch\.fx"):
        torch.fx.symbolic_trace(Mine())


WORKERS = """
import torch
from torch.utils.data import DataLoader, Dataset
from torchturbo import turbo

class Transform(torch.nn.Module):
    def forward(self, x):
        return x + 1

class Data(Dataset):
    transform = Transform()
    def __len__(self):
        return 4
    def __getitem__(self, at):
        return self.transform(torch.full((4,), float(at)))

net = torch.nn.Linear(4, 1)
with turbo("exact", compile=True):
    net(torch.ones(2, 4)).sum().backward()
    for x in DataLoader(Data(), batch_size=2, num_workers=1, timeout=60, multiprocessing_context="fork"):
        net(x).sum().backward()
print("done")
"""


@pytest.mark.slow
def test_forked_workers_compile_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", WORKERS], capture_output=True, text=True, timeout=200, check=False)
    assert "done" in done.stdout, done.stderr


def test_nothing_is_compiled_under_a_hook_for_all_modules_and_that_is_said(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compiler, "_warned", set())
    net, seen = Net(), []
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(type(module)))
    try:
        with turbo(BARE, compile=backend.options):
            with pytest.warns(CompileWarning, match="a hook for all modules"):
                net(X)
            net(X)
    finally:
        hook.remove()
    assert seen == [nn.Linear, nn.Linear, Net] * 2
    assert not backend.graphs
