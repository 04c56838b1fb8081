"""What is put to the test: torchturbo's blocks or a mutant's, and how to make a setter fail under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from tests.witness.cases import FAILING, Layer

Block = Any  # has __enter__ and __exit__


@dataclass(frozen=True)
class Subject:
    """A way to make blocks, to decorate a function with one, and to pretend a machine while entering one."""

    name: str
    turbo: Callable[..., Block]
    accelerate: Callable[..., Any] | None
    pretend: Callable[[str], AbstractContextManager[Any]] | None
    errors: tuple[type[BaseException], ...]
    heeds_options: bool = False

    def make(self, layer: Layer) -> Block:
        """A block as a user would make it."""
        return self.turbo(layer.profile, strict=layer.strict, **layer.options)

    def on(self, machine: str | None) -> AbstractContextManager[Any]:
        """The machine to make and enter blocks on; None is the real one."""
        return nullcontext() if machine is None or self.pretend is None else self.pretend(machine)


def load(name: str) -> Subject:
    """The subject of this name: ``torchturbo``, or ``module:Class`` for a mutant.

    Setters that can be made to fail are wrapped first, so that a subject which keeps its own reference has the wrapped
    one.
    """
    _plant()
    if name == "torchturbo":
        package, testing, errors = (import_module(f"torchturbo{part}") for part in ("", ".testing", ".errors"))
        return Subject(
            name, package.turbo, package.accelerate, testing.pretend_hardware, (errors.TurboError,), heeds_options=True
        )
    module, _, attribute = name.partition(":")
    return Subject(name, getattr(import_module(module), attribute), None, None, ())


_failing: list[tuple[str, bool]] = []


class PlantedError(RuntimeError):
    """Raised by a setter in which a failure was planted."""


def _plant() -> None:
    for name in FAILING:
        original = getattr(torch._C, name)
        if not hasattr(original, "planted"):
            setattr(torch._C, name, _can_fail(name, original))


def _can_fail(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def setter(*args: Any, **kwargs: Any) -> Any:
        for at, (failing, after) in enumerate(_failing):
            if failing == name:
                del _failing[at]  # once: taking back must work
                if after:
                    original(*args, **kwargs)
                raise PlantedError(f"planted in {name}, {'after' if after else 'before'} it wrote")
        return original(*args, **kwargs)

    setter.planted = True  # type: ignore[attr-defined]
    setter.__name__ = name
    return setter


@contextmanager
def failing(name: str, after: bool) -> Iterator[None]:
    """Let the next call of one setter fail, before it writes or after."""
    _failing.append((name, after))
    try:
        yield
    finally:
        _failing.clear()
