"""Blocks with one fault each: the plain ones, of which one step is broken, and the laws that must not accept that.

The faults are those that we found in the neighbours, made ourselves, or could think of.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

from tests.laws import blocks, own_before
from tests.laws.around import PlainBlock, around_calls
from tests.laws.layers import PlainLayer
from torchturbo.errors import WrongThreadError

Law = Callable[[Any], None]


def newest_block_wins(make: Any) -> None:
    """Law 3 over torch, with real blocks in real threads."""
    blocks.judge(make, examples=60, shrink=False)


def of_functions(law: Law) -> Law:
    """A law of functions, put to a block by hand."""

    def put_to(make: Any) -> None:
        law(around_calls(make))

    put_to.__name__ = law.__name__
    return put_to


recursion, many_threads, failing_recursion = map(
    of_functions, (own_before.recursion, own_before.many_threads, own_before.failing_recursion)
)


class BeforeOnTheOwner(PlainBlock):
    """What an entry found is kept on the object, which the next entry overwrites: threadpoolctl, torch.autocast."""

    laws: ClassVar[tuple[Law, ...]] = (recursion, own_before.re_entry, many_threads, newest_block_wins)

    def __enter__(self) -> object:
        self.layer = self.layers.open(self.writes, threading.get_ident())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self.layer in self.layers.layers:
            self.layers.close(self.layer, threading.get_ident())
        return None


class BeforesOnTheOwner(PlainBlock):
    """The object keeps what every entry found, newest last, for all threads together."""

    laws = (many_threads, newest_block_wins)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.entered: list[PlainLayer] = []

    def __enter__(self) -> object:
        with self.lock:
            self.entered.append(self.layers.open(self.writes, threading.get_ident()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self.lock:
            self.layers.close(self.entered.pop(), threading.get_ident())
        return None


class NewestOfTheThread(PlainBlock):
    """An exit closes the newest block of its thread, whichever object's it is."""

    laws = (own_before.re_entry, newest_block_wins)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self.lock:
            self.settle()
            if not self.mine():
                self.leave_elsewhere()
            _, layer = self.mine().pop()
            self.layers.close(layer, threading.get_ident())
        return None


class EntersOnce(PlainBlock):
    """An object that is entered already takes a second entry for the first, as a lock that is no counter does."""

    laws = (recursion, own_before.re_entry)

    def __enter__(self) -> object:
        if not any(block is self for block, _ in self.mine()):
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if any(block is self for block, _ in self.mine()):
            super().__exit__(kind, error, trace)
        return None


class AnyThreadWillDo(PlainBlock):
    """A block can be closed by any thread, without a word, and the thread's own state comes back in the wrong one."""

    laws = (own_before.wrong_thread, newest_block_wins)

    def leave_elsewhere(self) -> None:
        layer = next(layer for layer in reversed(self.layers.layers) if list(layer.edits.items()) == self.writes)
        self.layers.close(layer, layer.thread)


class RefusedElsewhere(PlainBlock):
    """A block that another thread closes is refused, and nothing is put back."""

    laws = (own_before.wrong_thread, newest_block_wins)

    def leave_elsewhere(self) -> None:
        raise WrongThreadError("closed in another thread")


class ForgetsStrays(PlainBlock):
    """A thread never puts its own state back for a block that another thread has closed."""

    laws = (own_before.wrong_thread, newest_block_wins)

    def settle(self) -> None:
        return


class Swallows(PlainBlock):
    """An exit swallows the body's exception."""

    laws = (failing_recursion, newest_block_wins)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        super().__exit__(kind, error, trace)
        return True


class LeavesOnlyWhenAllIsWell(PlainBlock):
    """A body that raises leaves the block in force."""

    laws = (failing_recursion, newest_block_wins)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return super().__exit__(kind, error, trace) if error is None else None


class NotInAChild(PlainBlock):
    """A child of fork takes its parent's blocks for somebody else's, and leaves them in force."""

    laws = (own_before.forked,)

    def __enter__(self) -> object:
        self.born = os.getpid()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return super().__exit__(kind, error, trace) if self.born == os.getpid() else None


MUTANTS: tuple[Any, ...] = tuple(
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, PlainBlock) and found is not PlainBlock
)
