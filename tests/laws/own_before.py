"""Law 5: a block owns its own before. Nothing about one entry is kept on an object that can be entered twice."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import torch

from tests.laws.around import Around, BlockMaker
from tests.laws.crew import Crew
from tests.laws.faithful import unchanged
from tests.laws.look import look
from tests.laws.pristine import in_fork
from tests.laws.violation import Violation, holds
from torchturbo.errors import WrongThreadError

Seen = tuple[bool, bool, bool]


def seen() -> Seen:
    """Two flags of the process, and one of this thread."""
    return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.is_grad_enabled()


OUTSIDE: Seen = (False, False, True)


def _is(expected: Seen, where: str) -> None:
    holds(seen() == expected, f"law 5: {where} it must be {expected}, and is {seen()}")


def recursion(around: Around[Any]) -> None:
    """A function in a block that calls itself finds it in force at every depth, and leaves nothing.

    Raises:
        Violation: it does not.
    """
    before = look()

    def down(depth: int) -> int:
        _is((True, False, False), f"{depth} calls from the bottom")
        reached = inner(depth - 1) if depth else 0
        _is((True, False, False), f"{depth} calls from the bottom, on the way back,")
        return int(reached) + 1

    inner = around(cudnn_benchmark=True, grad=False)(down)
    holds(inner(3) == 4, "law 5: a recursive function does not return what it returns")
    unchanged(before, "law 5: recursion left something")


def mutual_recursion(around: Around[Any]) -> None:
    """Two functions in blocks of their own that call each other find the newest in force.

    Raises:
        Violation: they do not.
    """
    before = look()

    def even(depth: int) -> None:
        _is((True, False, False), f"in the one, {depth} calls from the bottom,")
        if depth:
            odd_block(depth - 1)
        _is((True, False, False), f"in the one, {depth} calls from the bottom, on the way back,")

    def odd(depth: int) -> None:
        _is((False, True, True), f"in the other, {depth} calls from the bottom,")
        if depth:
            even_block(depth - 1)
        _is((False, True, True), f"in the other, {depth} calls from the bottom, on the way back,")

    even_block = around(cudnn_benchmark=True, cudnn_deterministic=False, grad=False)(even)
    odd_block = around(cudnn_benchmark=False, cudnn_deterministic=True, grad=True)(odd)
    even_block(4)
    unchanged(before, "law 5: mutual recursion left something")


def failing_recursion(around: Around[Any]) -> None:
    """An exception that comes up through every depth is the one that was raised, and all is put back.

    Raises:
        Violation: it is not.
    """
    before = look()
    planted = ValueError("from the bottom")

    def down(depth: int) -> None:
        if not depth:
            raise planted
        inner(depth - 1)

    inner = around(cudnn_benchmark=True, grad=False)(down)
    try:
        inner(3)
    except ValueError as error:
        holds(error is planted and not getattr(error, "__notes__", []), f"law 4: another exception came up: {error!r}")
    else:
        raise Violation("law 4: the exception was swallowed")
    unchanged(before, "law 5: an exception through recursion left something")


def many_threads(around: Around[Any]) -> None:
    """One function, called by several threads at once that leave in any order.

    Raises:
        Violation: one thread's call disturbs another's.
    """
    before = look()

    def body(inside: threading.Event, leave: threading.Event) -> Seen:
        inside.set()
        leave.wait(60)
        return seen()

    inner = around(cudnn_benchmark=True, grad=False)(body)
    with Crew(3) as crew:
        crew[0].do(lambda: torch.set_grad_enabled(False))  # so that no two threads have the same before
        calls = [(hand, threading.Event(), threading.Event()) for hand in crew]
        try:
            for hand, inside, leave in calls:
                hand.start(lambda inside=inside, leave=leave: inner(inside, leave))
                inside.wait(60)
            _is((True, False, True), "beside three calls in other threads")
            for hand, _, leave in (calls[1], calls[0], calls[2]):
                leave.set()
                result = hand.finish()
                holds(result == (True, False, False), f"law 5: a call that others left before it reads {result}")
                grad = hand.do(torch.is_grad_enabled)
                holds(grad == (hand is not crew[0]), f"law 5: after its call a thread's grad mode is {grad}")
        finally:
            for _, _, leave in calls:
                leave.set()
    unchanged(before, "law 5: calls from several threads left something")


def re_entry(make: BlockMaker) -> None:
    """One object, entered again and again, within itself and within others, and left in any order.

    Raises:
        Violation: an exit leaves something, or takes out more than its own entry.
    """
    before = look()
    one, other = make(cudnn_benchmark=True, grad=False), make(cudnn_deterministic=True)
    for _ in range(3):
        with one:
            _is((True, False, False), "in one block")
            with one:
                _is((True, False, False), "in it twice")
            _is((True, False, False), "left once of twice")
        unchanged(before, "law 5: an object entered again left something")
    one.__enter__()
    other.__enter__()
    one.__enter__()
    one.__exit__(None, None, None)
    _is((True, True, False), "in one and another, the one left once of twice,")
    one.__exit__(None, None, None)
    _is((False, True, True), "the one left from beneath the other,")
    other.__exit__(None, None, None)
    unchanged(before, "law 5: objects left in another order left something")


def wrong_thread(make: BlockMaker) -> None:
    """A block that another thread closes: it is told, the process's part is back at once, the thread's when it can be.

    Raises:
        Violation: it is not, or the wrong thread's own state is touched.
    """
    before = look()
    block = make(cudnn_benchmark=True, grad=False)
    with Crew(2) as (one, other):
        for opener, closer in ((one, other), (other, one)):
            at_first = opener.do(look)
            opener.do(block.__enter__)
            closers = closer.do(look)
            _close_as_a_stranger(closer.do, block)
            holds(not seen()[0], "law 5: a block closed by another thread is still in force for the process")
            holds(
                closer.do(look)["is_grad_enabled"] == closers["is_grad_enabled"],
                "law 5: it was put back in the wrong thread",
            )
            holds(
                opener.do(seen) == (False, False, False), "law 5: nobody can put a thread's state back but that thread"
            )
            opener.do(lambda: _through(make(cudnn_deterministic=True)))
            holds(opener.do(look) == at_first, "law 5: a thread's state did not come back at its next block")
    unchanged(before, "law 5: a block closed by another thread left something")


def _close_as_a_stranger(do: Callable[[Callable[[], Any]], Any], block: Any) -> None:
    try:
        do(lambda: block.__exit__(None, None, None))
    except WrongThreadError:
        return
    raise Violation("law 5: a block was closed by a thread that never opened it, without a word")


def _through(block: Any) -> None:
    with block:
        pass


def forked(make: BlockMaker) -> None:
    """A child of fork leaves the blocks that it was born in, and its parent never notices.

    Raises:
        Violation: something is left in the child, or in the parent.
    """
    before = look()
    outer, inner, threads = make(cudnn_benchmark=True, grad=False), make(cudnn_deterministic=True), make(anomaly=True)
    with Crew(1) as (hand,):
        hand.do(threads.__enter__)  # and ends, with its block open

    def child() -> None:
        holds(os.getpid() != parent, "this is to be a child")
        random.setstate(stood)  # Python seeds every child of fork anew
        with inner:
            _is((True, True, False), "in a child, in a block opened there,")
        inner.__exit__(None, None, None)
        _is((True, False, False), "in a child that left a block of its parent's")
        outer.__exit__(None, None, None)
        _close_as_a_stranger(lambda act: act(), threads)
        unchanged(before, "law 5: a child that left every block has something left")

    parent, stood = os.getpid(), random.getstate()
    with outer:
        inner.__enter__()
        in_fork(child)
        _is((True, True, False), "after a child left its blocks, in the parent's,")
        inner.__exit__(None, None, None)
        _is((True, False, False), "after a child left its blocks, in the outer one of the parent's,")
    _close_as_a_stranger(lambda act: act(), threads)
    unchanged(before, "law 5: a parent of a child that left its blocks has something left")
