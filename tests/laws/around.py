"""Blocks around code, as the laws ask for them: torchturbo's, and a plainer one that holds the laws too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tests.laws.catalogue import writes_of
from tests.laws.layers import Plain, PlainLayer
from torchturbo import Profile, accelerate, turbo
from torchturbo.errors import RestoreError, WrongThreadError
from torchturbo.settings._base import Write

F = TypeVar("F", bound=Callable[..., Any])

NOTHING = Profile("nothing")
"""Leaves everything as it is, so that a block does what its options say and no more."""


class Block(Protocol):
    """What `with` asks for."""

    def __enter__(self) -> object:
        """Puts the options in force."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Takes them out again."""


BlockMaker = Callable[..., Block]
"""Makes a block from options; to be called while a machine that can do everything is pretended."""

Around = Callable[..., Callable[[F], F]]
"""Makes from options what puts a block around every call of a function."""


def ours(**options: Any) -> Block:
    """A block of torchturbo."""
    return turbo(NOTHING, **options)


def decorated(**options: Any) -> Callable[[F], F]:
    """Torchturbo's decorator."""
    return accelerate(profile=NOTHING, **options)


def around_calls(make: BlockMaker) -> Around[Any]:
    """A decorator by hand: one block, made once, around every call."""

    def decorator(**options: Any) -> Callable[[F], F]:
        block = make(**options)

        def decorate(function: F) -> F:
            def call(*args: Any) -> Any:
                with block:
                    return function(*args)

            return call  # type: ignore[return-value]

        return decorate

    return decorator


class PlainBlock:
    """A block over plain layers, each step a method that a mutant can break. `reset` is for between two trials."""

    layers = Plain()
    lock = threading.RLock()
    local = threading.local()

    @classmethod
    def reset(cls) -> None:
        """Forgets everything that is open."""
        cls.layers = Plain()
        cls.local = threading.local()

    def __init__(self, **options: Any) -> None:
        self.writes: list[Write] = list(writes_of(options))

    def mine(self) -> list[tuple[PlainBlock, PlainLayer]]:
        """What this thread has open, oldest first."""
        return vars(self.local).setdefault("open", [])  # type: ignore[no-any-return]

    def __enter__(self) -> object:
        with self.lock:
            self.settle()
            self.mine().append((self, self.layers.open(self.writes, threading.get_ident())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self.lock:
            self.settle()
            for place in reversed(range(len(self.mine()))):
                if self.mine()[place][0] is self:
                    _, layer = self.mine().pop(place)
                    self.layers.close(layer, threading.get_ident())
                    return None
            self.leave_elsewhere()
        return None

    def settle(self) -> None:
        """Puts this thread's own state back for blocks that other threads have closed."""
        for block, layer in list(self.mine()):
            shared, left = ({cell for cell in cells if cell.scope == "process"} for cells in (layer.edits, layer.put))
            if shared and not left:
                self.mine().remove((block, layer))
                self.layers.close_part(layer, layer.thread, "thread")

    def leave_elsewhere(self) -> None:
        """Closes what another thread opened as far as this one can."""
        for layer in reversed(self.layers.layers):
            if list(layer.edits.items()) == self.writes:
                self.layers.close_part(layer, layer.thread, "process")
                raise WrongThreadError("closed in another thread")
        raise RestoreError("was never entered")
