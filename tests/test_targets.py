"""What accelerate cannot decorate it refuses at once, and says what to do instead."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from torchturbo import Profile, accelerate, turbo
from torchturbo.errors import TargetError


def plain() -> None:
    """The one thing here that could be decorated."""


class Looking:
    """A class."""


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@functools.wraps(generator)
def wrapped_generator() -> Iterator[int]:
    return generator()


PLAIN = "accelerate takes a plain function, and got {}: put `with turbo('fast'):` inside the function that uses it"
PARTS = "accelerate cannot yet decorate {}, whose code runs in parts"


REFUSED: dict[str, tuple[object, str]] = {
    "generator": (generator, PARTS.format("generator")),
    "coroutine": (coroutine, PARTS.format("coroutine")),
    "async generator": (async_generator, PARTS.format("async_generator")),
    "wrapper of a generator": (wrapped_generator, PARTS.format("generator")),
    "class": (Looking, PLAIN.format("type")),
    "Module": (nn.Linear(2, 2), PLAIN.format("Linear")),
    "class of Modules": (nn.Linear, PLAIN.format("type")),
    "optimizer": (torch.optim.SGD([torch.ones(1)]), PLAIN.format("SGD")),
    "builtin": (len, PLAIN.format("builtin_function_or_method")),
    "torch's own": (torch.add, PLAIN.format("builtin_function_or_method")),
    "partial": (functools.partial(plain), PLAIN.format("partial")),
    "partial of a generator": (functools.partial(generator), PLAIN.format("partial")),
    "cached function": (functools.lru_cache(plain), PLAIN.format("_lru_cache_wrapper")),
    "bound method": (threading.Barrier(1).wait, PLAIN.format("method")),
    "staticmethod": (staticmethod(plain), PLAIN.format("staticmethod")),
    "classmethod": (classmethod(plain), PLAIN.format("classmethod")),
    "property": (property(plain), PLAIN.format("property")),
    "block": (turbo("fast"), PLAIN.format("turbo")),
    "number": (3, PLAIN.format("int")),
    "name of a profile": ("fast", "accelerate('fast'): a profile goes by keyword, accelerate(profile=...)"),
    "profile": (Profile("mine"), "a profile goes by keyword, accelerate(profile=...)"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("decorator", [accelerate, accelerate(profile="fast")], ids=["bare", "with_arguments"])
def test_what_is_no_plain_function_is_refused_at_once(decorator: Callable[[Any], Any], kind: str) -> None:
    target, message = REFUSED[kind]
    with pytest.raises(TargetError) as caught:
        decorator(target)
    assert message in str(caught.value)
