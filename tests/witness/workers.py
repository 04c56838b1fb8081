"""Threads that do what they are told, and work for them to do."""

from __future__ import annotations

import queue
import random
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import torch


class Worker:
    """A thread that does what it is told, one thing at a time, and hands back what came of it."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while (function := self._told.get()) is not None:
            try:
                self._done.put((function(), None))
            except BaseException as error:
                self._done.put((None, error))

    def start(self, function: Callable[[], Any]) -> None:
        """Tell it, and do not wait."""
        self._told.put(function)

    def wait(self) -> Any:
        """Wait for what it was told, and have the result or the exception."""
        result, error = self._done.get()
        if error is not None:
            raise error
        return result


def compile_something() -> None:
    """Compile a function that was never compiled, without a compiler of C++, and run it."""

    def square(x: torch.Tensor) -> torch.Tensor:
        return x @ x + 1

    # Dynamo remembers by code object, and would find what the parent compiled.
    new = types.FunctionType(square.__code__.replace(co_name="new"), globals())
    torch.compile(new, backend="eager")(torch.ones(2, 2))


def draw_and_seed(seed: int) -> None:
    """What a body does that has randomness in it."""
    for _ in range(2):
        random.random()
        random.gauss()
        torch.rand(3)
        random.seed(seed)
        torch.manual_seed(seed)
        torch.cuda.manual_seed(seed)
        torch.cuda.set_rng_state(torch.get_rng_state())
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].normal()


def work(*, optimizer: bool) -> None:
    """A small training step. It may fail in a strange state; it must not matter to the state.

    The first optimizer that is made imports dynamo, which takes seconds where it is not loaded.
    """
    try:
        weight = torch.ones(4, 4, requires_grad=True)
        loss = torch.nn.functional.linear(torch.ones(2, 4), weight).float().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer:
            torch.optim.SGD([weight], lr=0.1).step()
        # After a backward a region is off until the next forward; one that is not compiled, for its hook.
        forward = torch.nn.Identity()
        forward.register_forward_hook(lambda *args: None)
        forward(weight)
    except (RuntimeError, NotImplementedError, Warning):
        return
