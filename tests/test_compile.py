"""Blocks and torch.compile: the numbers, graphs and recompilations of code written by hand, and everything put back."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.dynamo import compiled_by_dynamo
from torchturbo import accelerate, turbo
from torchturbo.testing import pretend_hardware

# torch's own warnings about its own code: tracing an optimizer loads what torch calls deprecated, and Dynamo looks at
# the gradient of every tensor that crosses a break in a graph.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"),
]

Forward = Callable[[], AbstractContextManager[object]]
ROOT = Path(__file__).parents[1]
by_hand = partial(torch.autocast, "cpu", torch.bfloat16)
backends = pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    """Loaded and used once, so that what this changes in Python is not taken for what a test has left."""
    with warnings.catch_warnings():
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "")  # inductor leaves an address in it
    torch.compiler.reset()
    with pretend_hardware("cpu-bf16"):
        yield
    torch.compiler.reset()


def counting(backend: str) -> Any:
    from torch._dynamo.testing import CompileCounterWithBackend

    return CompileCounterWithBackend(backend)


class Island(nn.Module):
    """A layer, a product that stays in float32, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            wide = x.float()
            x = wide @ wide.T @ wide * 0.01
        result: Tensor = self.last(x.tanh())
        return result


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))


class Training:
    """Some steps, of which this or that is compiled; what comes of them, and how many graphs it took."""

    def __init__(self, backend: str, model: Callable[[], nn.Module] = plain, optimizer: str = "SGD") -> None:
        torch.compiler.reset()
        torch.manual_seed(0)
        self.model = model()
        self.optimizer = getattr(torch.optim, optimizer)(self.model.parameters(), lr=0.1)
        self.x, self.y = torch.randn(8, 16), torch.randn(8, 1)
        self.backend = counting(backend)
        self.losses: list[Tensor] = []

    def compiled_step(self, forward: Forward) -> Training:
        def step(x: Tensor, y: Tensor) -> Tensor:
            self.optimizer.zero_grad()
            with forward():
                loss = F.mse_loss(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        step = torch.compile(step, backend=self.backend)
        self.losses = [step(self.x, self.y) for _ in range(4)]
        return self

    def compiled_model(self, forward: Forward) -> Training:
        model = torch.compile(self.model, backend=self.backend)
        for _ in range(4):
            self.optimizer.zero_grad()
            with forward():
                loss = F.mse_loss(model(self.x), self.y)
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.detach())
        return self

    def agrees_with(self, other: Training) -> bool:
        these, those = ([*training.losses, *training.model.parameters()] for training in (self, other))
        return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


@backends
@pytest.mark.parametrize("compiled", [Training.compiled_step, Training.compiled_model])
def test_a_block_around_compiled_training_is_autocast_in_it(
    backend: str, compiled: Callable[[Training, Forward], Training]
) -> None:
    expected = compiled(Training(backend), by_hand)
    with turbo("fast"):
        found = compiled(Training(backend), nullcontext)
    assert found.agrees_with(expected)
    assert found.backend.frame_count == expected.backend.frame_count
    assert not found.agrees_with(compiled(Training("eager"), nullcontext)), "float32 gives the same bits"


def test_a_block_around_every_call_costs_no_compilation_more() -> None:
    expected = Training("eager").compiled_step(by_hand)
    model, step = Training("eager"), Training("eager")
    model.compiled_model(partial(turbo, "fast"))
    assert model.agrees_with(expected)
    with turbo("fast"):
        step.compiled_step(partial(turbo, "fast"))
    assert step.agrees_with(expected)


def test_an_optimizer_in_a_compiled_step_runs_without_autocast() -> None:
    expected = Training("eager", optimizer="Adafactor").compiled_step(by_hand)
    with turbo("fast"):
        found = Training("eager", optimizer="Adafactor").compiled_step(nullcontext)
    assert found.agrees_with(expected)


@pytest.mark.parametrize("in_graph", [False, True], ids=["traced_ahead", "compiled_autograd"])
def test_the_backward_of_a_compiled_model_is_traced_without_autocast(in_graph: bool) -> None:
    import torch._dynamo.config
    import torch._functorch.config

    # By hand torch has to be told; by default it traces backward under the autocast of the forward.
    with torch._dynamo.config.patch(compiled_autograd=in_graph):
        with torch._functorch.config.patch(backward_pass_autocast="off"):
            expected = Training("aot_eager", Island).compiled_model(by_hand)
        default = Training("aot_eager", Island).compiled_model(by_hand)
        with turbo("fast"):
            found = Training("aot_eager", Island).compiled_model(nullcontext)
    assert found.agrees_with(expected)
    assert not default.agrees_with(expected)


# ------------------------------------------------------------------------------------------------- recompilations


def compilations(*blocks: AbstractContextManager[object]) -> list[int]:
    """How many graphs there are after each of several calls of one compiled function, all of it twice."""
    backend = counting("eager")
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    compiled = torch.compile(lambda x: layer(x).relu(), backend=backend)
    counts = []
    for block in blocks * 2:
        with block:
            compiled(x)
        counts.append(backend.frame_count)
    return counts


def test_coming_and_going_costs_no_recompilation_more_than_autocast_does() -> None:
    found = compilations(nullcontext(), turbo("fast"), turbo("exact"))
    torch.compiler.reset()
    assert found == compilations(nullcontext(), by_hand(cache_enabled=False), nullcontext())
    assert found == [1] + [2] * 5


def test_a_recompilation_would_be_seen() -> None:
    other = torch.get_num_threads() + 1
    assert compilations(nullcontext(), turbo("exact", num_threads=other)) == [1, 2, 2, 2]


def test_on_a_gpu_with_tf32_there_is_one_graph_a_state() -> None:
    with pretend_hardware("A100"):
        assert compilations(nullcontext(), turbo("fast"), turbo("fast"), nullcontext()) == [1] + [2] * 7


# ----------------------------------------------------------------------------------------------- inside compiled code


def dtypes_of_calls(function: Callable[[Tensor], Tensor]) -> set[torch.dtype]:
    compiled = torch.compile(function, backend="eager")
    found = {compiled(torch.ones(2, 4)).dtype for _ in range(3)}
    assert not torch.is_autocast_enabled("cpu")
    return found


def test_a_block_inside_a_compiled_function_is_in_force() -> None:
    layer = nn.Linear(4, 4)
    inside: list[torch.dtype] = []

    def function(x: Tensor) -> Tensor:
        x = layer(x)
        with turbo("fast"):
            inside.append(layer(x).dtype)
        result: Tensor = layer(x)
        return result

    assert dtypes_of_calls(function) == {torch.float32}
    assert set(inside) == {torch.bfloat16}


def test_a_decorated_function_can_be_compiled() -> None:
    layer = nn.Linear(4, 4)
    assert dtypes_of_calls(accelerate(lambda x: layer(x))) == {torch.bfloat16}


def test_a_compiled_function_can_be_decorated() -> None:
    layer = nn.Linear(4, 4)
    decorated = accelerate(torch.compile(lambda x: layer(x), backend="eager"))
    assert decorated(torch.ones(2, 4)).dtype is torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_a_decorated_function_that_compiled_code_calls_is_decorated() -> None:
    layer = nn.Linear(4, 4)
    decorated = accelerate(lambda x: layer(x))
    assert dtypes_of_calls(lambda x: decorated(x.sin())) == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------- nothing of ours


def test_no_code_of_ours_is_compiled() -> None:
    with turbo("fast"):
        Training("eager").compiled_step(partial(turbo, "fast"))
    assert compiled_by_dynamo("torchturbo") == []
    assert "Training.compiled_step.<locals>.step" in compiled_by_dynamo(__name__), "ours would not have been seen"


# -------------------------------------------------------------------------------------------- in a fresh process


@pytest.fixture(scope="module")
def left() -> dict[str, list[str]]:
    """What is different after each case, in processes that have never compiled before."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.compiling"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


def test_precision_is_put_back_whatever_it_was_before(left: dict[str, list[str]]) -> None:
    after = {case: lines for case, lines in left.items() if case.startswith("precision after")}
    assert len(after) >= 3
    assert {case: lines for case, lines in after.items() if lines} == {}
    assert left["precision without blocks"], "compiling changes precision, and the witness did not see it"


def test_what_inductor_believes_of_determinism_is_put_back(left: dict[str, list[str]]) -> None:
    after = {case: lines for case, lines in left.items() if case.startswith("deterministic")}
    assert len(after) == 6
    assert {case: lines for case, lines in after.items() if lines} == {}


def test_asking_for_determinism_does_not_load_the_compiler(left: dict[str, list[str]]) -> None:
    assert left["reproducible loads nothing"] == []
