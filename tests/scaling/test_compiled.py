"""Compiled models, losses, optimizers and steps in a block that scales."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.scaling.loops import (
    OPTIONS,
    QUIET,
    By,
    Loop,
    batch,
    by_hand,
    differences,
    net,
    regression,
    sgd,
    untouched,
)
from tests.scaling.ordinary import ordinary
from torchturbo import turbo

pytestmark = [
    # torch's own warning about its own code: Dynamo looks at the gradient of every tensor that crosses a break.
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]


@pytest.fixture(scope="module", autouse=True)
def inductor(compiler: None) -> None:
    """Loaded once: torch's own code warns of itself then, and Dynamo loads it for compiled optimizers too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._inductor.compile_fx")


def out_of_autocast(recipe: Callable[[By], Loop], **options: Any) -> dict[str, object]:
    """By hand, with the backward of compiled code traced as eager backward runs: without autocast."""
    config = torch._functorch.config
    with config.patch(backward_pass_autocast="off") if hasattr(config, "backward_pass_autocast") else nullcontext():
        return by_hand(recipe, **options)


def compiled(backend: str | None) -> Callable[[By], Loop]:
    def recipe(by: By) -> Loop:
        model = net()
        optimizer = sgd(model)
        faster = model if backend is None else torch.compile(model, backend=backend)

        def step(number: int) -> object:
            optimizer.zero_grad()
            with by.forward():
                loss = regression(faster, number)
            by.scale(loss).backward()
            by.unscale(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), QUIET)
            by.step(optimizer)
            by.update()
            return loss, norm

        return Loop(step, [model], [optimizer])

    return recipe


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model(backend: str) -> None:
    expected = out_of_autocast(compiled(backend))
    torch.compiler.reset()
    assert not differences(untouched(compiled(backend)), expected)


@pytest.mark.slow
def test_a_model_compiled_by_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "CUDA_MODULE_LOADING"):
        monkeypatch.setenv(variable, "")  # inductor writes them, and so they are put back
    expected = out_of_autocast(compiled("inductor"))
    torch.compiler.reset()
    assert not differences(untouched(compiled("inductor")), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_block_that_compiles(backend: str) -> None:
    """The model and the loss are compiled where they are called, as they are here by hand."""
    expected = out_of_autocast(compiled(backend))
    torch.compiler.reset()
    assert not differences(untouched(compiled(None), compile={"backend": backend}), expected)


def test_a_compiled_optimizer() -> None:
    """Its step is called or not as any other."""

    def recipe(by: By) -> Loop:
        made = ordinary(by)
        (optimizer,) = made.optimizers
        eager = optimizer.step
        optimizer.step = torch.compile(eager, backend="eager")
        return made

    expected = by_hand(recipe)
    torch.compiler.reset()
    assert not differences(untouched(recipe), expected)


def test_a_compiled_forward_and_loss() -> None:
    """A function and not a module."""

    def recipe(by: By) -> Loop:
        model = net()
        optimizer = sgd(model)

        @partial(torch.compile, backend="aot_eager")
        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            return torch.nn.functional.mse_loss(model(x), y) * QUIET

        def step(number: int) -> object:
            optimizer.zero_grad()
            with by.forward():
                loss = loss_of(*batch(number))
            by.scale(loss).backward()
            by.step(optimizer)
            by.update()
            return loss

        return Loop(step, [model], [optimizer])

    expected = out_of_autocast(recipe)
    torch.compiler.reset()
    assert not differences(untouched(recipe), expected)


def test_what_was_compiled_outside_runs_inside_and_outside_again() -> None:
    """And never keeps the scale of where it was traced."""
    torch.manual_seed(0)
    model = net()
    faster = torch.compile(model, backend="aot_eager")

    def gradients() -> list[Tensor]:
        model.zero_grad()
        regression(faster, 1).backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    with turbo("fast", autocast="fp16", **OPTIONS):
        first = gradients()
    assert all(map(torch.equal, gradients(), before))
    with turbo("fast", autocast="fp16", **{**OPTIONS, "init_scale": 2.0**10}):
        second = gradients()
    assert all(torch.allclose(a, b, rtol=0.1, atol=1e-7) for a, b in zip(first, second, strict=True))
    assert not all(map(torch.equal, first, before))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", ["plain", "with a module", "with a checkpoint"])
def test_autocast_comes_back_after_a_compiled_function(backend: str, kind: str) -> None:
    """Called after a backward without a step since, all of it runs in float32, and the next module does not."""
    model, weight = net(), nn.Parameter(torch.randn(16, 16))
    optimizer = torch.optim.SGD([*model.parameters(), weight], lr=0.1)

    def inner(x: Tensor) -> Tensor:
        return torch.tanh(x @ weight)

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": inner,
        "with a module": lambda x: model[4](model[:4](inner(x) @ torch.ones(16, 16))),
        "with a checkpoint": lambda x: checkpoint(inner, x, use_reentrant=False),
    }
    function = torch.compile(functions[kind], backend=backend)
    seen = []
    with turbo("fast", autocast="fp16", **OPTIONS):
        for _ in range(2):
            for part in range(2):
                output = function(batch(part)[0])
                after = output if kind == "with a module" else model(output)
                seen.append((output.dtype, after.dtype))
                (after.float().square().mean() * QUIET).backward()
            optimizer.step()
        assert model(batch(0)[0]).dtype is torch.float16
    half, full = torch.float16, torch.float32
    assert seen == [(half, half), (full, full if kind == "with a module" else half)] * 2
