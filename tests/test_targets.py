"""What accelerate cannot decorate it refuses at once, and says what to decorate instead."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchturbo import Profile, accelerate, restore, turbo
from torchturbo.errors import TargetError


class Looking:
    """A class, and no module."""


class Parts(nn.Module):
    """A module that is called by its parts."""


class Streaming(nn.Module):
    """A module whose forward is a generator."""

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        yield x


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@functools.wraps(generator)
def wrapped_generator() -> list[int]:
    return list(generator())


LOOP = "the function that loops over it, or put `with turbo('fast'):` around the loop"
STEP = "the function that calls its step(), or put `with turbo('fast'):` around the loop that does"
METHODS = "those of its methods that compute something; only classes of torch.nn.Module are accelerated whole"
CALLABLE = "a function, a method, a module or a class of modules"
CALLED = "accelerate cannot decorate {}, which has been called already: decorate the function"
CANNOT = "accelerate cannot decorate {}: decorate {}"
ABOVE = (
    "accelerate is above a decorator that makes something else of {0}, whose code runs in parts: put accelerate "
    "beneath it, right above `def {0}`"
)
NO_FORWARD = "{} has no forward to accelerate: accelerate what defines one, or what calls its parts"


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def scripted() -> Any:
    return torch.jit.script(nn.ReLU())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "optimizer": (optimizer, CANNOT.format("SGD", STEP)),
    "LR scheduler": (lambda: torch.optim.lr_scheduler.StepLR(optimizer(), 1), CANNOT.format("StepLR", STEP)),
    "class of optimizers": (lambda: torch.optim.SGD, CANNOT.format("the class SGD", METHODS)),
    "DataLoader": (lambda: DataLoader([1]), CANNOT.format("DataLoader", LOOP)),
    "class": (lambda: Looking, CANNOT.format("the class Looking", METHODS)),
    "type of Python's": (lambda: int, CANNOT.format("the class int", METHODS)),
    "object that is not callable": (Looking, CANNOT.format("Looking", CALLABLE)),
    "number": (lambda: 3, CANNOT.format("int", CALLABLE)),
    "tensor": (lambda: torch.ones(1), CANNOT.format("Tensor", CALLABLE)),
    "list of modules": (lambda: [nn.ReLU()], CANNOT.format("list", CALLABLE)),
    "write-only property": (lambda: property(None, lambda self, value: None), CANNOT.format("property", CALLABLE)),
    "generator, running": (generator, CALLED.format("generator")),
    "async generator, running": (async_generator, CALLED.format("async_generator")),
    "block": (
        lambda: turbo("max"),
        CANNOT.format(
            "turbo", "the function: accelerate(function, profile=...) does what `with turbo('fast'):` inside it does"
        ),
    ),
    "name of a profile": (lambda: "fast", "accelerate('fast'): a profile goes by keyword, accelerate(profile=...)"),
    "profile": (
        lambda: Profile("mine"),
        "accelerate(<Profile 'mine': >): a profile goes by keyword, accelerate(profile=...)",
    ),
    "wrapper of a generator": (lambda: wrapped_generator, ABOVE.format("generator")),
    "context manager of a generator": (lambda: contextlib.contextmanager(generator), ABOVE.format("generator")),
    "async context manager": (
        lambda: contextlib.asynccontextmanager(async_generator),
        ABOVE.format("async_generator"),
    ),
    "cached coroutine": (lambda: functools.lru_cache(coroutine), ABOVE.format("coroutine")),
    "module without a forward": (Parts, NO_FORWARD.format("Parts")),
    "class without a forward": (lambda: Parts, NO_FORWARD.format("Parts")),
    "list of modules, as a module": (lambda: nn.ModuleList([nn.ReLU()]), NO_FORWARD.format("ModuleList")),
    "dictionary of modules": (lambda: nn.ModuleDict({"a": nn.ReLU()}), NO_FORWARD.format("ModuleDict")),
    "module that runs in turns": (
        Streaming,
        "Streaming.forward runs in turns, which the forward of an accelerated module cannot do",
    ),
    "class of modules that run in turns": (
        lambda: Streaming,
        "Streaming.forward runs in turns, which the forward of an accelerated module cannot do",
    ),
    "ScriptModule": (
        scripted,
        "RecursiveScriptModule is TorchScript's, and cannot be changed: accelerate the function that calls it",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _optimizers_are_loaded() -> None:
    """The first optimizer loads much of torch, and a filter for warnings with it, which is no test's doing."""
    with warnings.catch_warnings():
        optimizer()


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("decorator", [accelerate, accelerate(profile="fast")], ids=["bare", "with_arguments"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_it_is_refused_at_once_and_left_as_it_is(decorator: Callable[[Any], Any], kind: str) -> None:
    make, message = REFUSED[kind]
    target = make()
    before = dict(vars(target)) if hasattr(target, "__dict__") else None
    with pytest.raises(TargetError) as caught:
        decorator(target)
    assert str(caught.value) == message
    assert before is None or dict(vars(target)).keys() == before.keys()


def test_a_coroutine_that_has_been_called_already() -> None:
    made = coroutine()
    with pytest.raises(TargetError) as caught:
        accelerate(made)
    assert str(caught.value) == CALLED.format("coroutine")
    made.close()


def test_a_decorated_generator_is_taken_the_other_way_round() -> None:
    with contextlib.contextmanager(accelerate(generator))() as value:
        assert value == 1


@pytest.mark.parametrize(
    ("target", "kind"), [(lambda: 1, "function"), (3, "int"), (Looking, "the class Looking"), (None, "NoneType")]
)
def test_restore_takes_modules_only(target: Any, kind: str) -> None:
    with pytest.raises(TargetError) as caught:
        restore(target)
    assert str(caught.value) == (
        f"restore takes a module or a class of modules, and got {kind}; a function is as it was before, and is the "
        "__wrapped__ of what accelerate has made of it"
    )
