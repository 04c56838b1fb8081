"""What the regions of threads ask for, and what acts on it in torch for as long as any of them asks.

Each thread asks for itself. What acts stands in torch for all threads, and asks `Asking.thread` whether it is to do
anything in the one that it runs in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw


class Asked:
    """What a thread's region asks for. A kind of regions adds what has come of it.

    Attributes:
        wanted: what it asks for. What the class says is nothing at all, and whatever is false asks for nothing.
    """

    wanted: Any = None

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A region begins to ask: what came of those before it is forgotten."""

    def end(self) -> None:
        """The region asks no more."""


A = TypeVar("A", bound=Asked)


class _Thread(threading.local, Generic[A]):
    """This thread's.

    Attributes:
        its: what its region asks for.
    """

    def __init__(self, kind: type[A]) -> None:
        self.its = kind()


class Asking(Generic[A]):
    """The threads whose regions ask for something.

    Args:
        kind: what a thread asks for; made once for each.
        place: has what acts be in its place in torch or not. It is called more often than that changes, so that it also
            mends what an interrupt has left half way.
        in_children: whether a forked child asks for what the thread that forked did.

    Attributes:
        thread: this thread's.
        asking: those that ask for something.
    """

    def __init__(self, kind: type[A], place: Callable[[bool], None], *, in_children: bool = True) -> None:
        self.thread = _Thread(kind)
        self.asking: dict[A, None] = {}
        self._kind, self._place, self._in_children = kind, place, in_children
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forked)

    def cell(self, name: str) -> Cell:
        """What a thread's region asks for, as a cell; its raw state is `Asked.wanted`.

        Args:
            name: of the cell.
        """

        def read() -> Raw:
            return self.thread.its.wanted

        def write(raw: Raw, over: Raw) -> None:
            its = self.thread.its
            was, nothing = its.wanted, self._kind.wanted
            if was is nothing and raw is not nothing:
                its.begin()
            its.wanted = raw
            self.settle()
            if was is not nothing and raw is nothing:
                its.end()

        return Cell(name, "thread", read, write)

    def settle(self) -> None:
        """Has all be as this thread's `wanted` has it. Always called under the lock of the stack."""
        its = self.thread.its
        if its.wanted:
            self.asking[its] = None
        else:
            self.asking.pop(its, None)
        self._place(bool(self.asking))

    def forked(self) -> None:
        """In a forked child there is one thread, the one that forked."""
        self.asking.clear()
        if not self._in_children:
            self.thread.its = self._kind()
        self.settle()
