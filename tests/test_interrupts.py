"""An interrupt (Ctrl-C) can come wherever Python looks for one: a call of ours is over then, and all is back.

Python looks as a function begins and after a builtin has returned. The test makes one come at each of these, in turn.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.laws.look import differences, look
from torchturbo import accelerate
from torchturbo._turbo import _LOCK, in_force
from torchturbo.testing import pretend_hardware


class Interrupt:
    """Raises KeyboardInterrupt at one of the places where Python looks for one.

    Args:
        at: which.

    Attributes:
        come: whether it has come.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.come = False

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        if event not in ("call", "c_return") or what is sys.setprofile:
            return
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            self.come = True
            raise KeyboardInterrupt


def interrupted(act: Callable[[], object]) -> Iterator[int]:
    """Has `act` interrupted at each place in turn, until it comes to its end."""
    for at in itertools.count():
        interrupt = Interrupt(at)
        with contextlib.suppress(KeyboardInterrupt):
            sys.setprofile(interrupt)
            act()
            sys.setprofile(None)
        if not interrupt.come:
            return
        yield at


def lock_is_free() -> bool:
    """Whether another thread gets the lock."""
    got: list[bool] = []

    def take() -> None:
        got.append(_LOCK.acquire(timeout=10))
        _LOCK.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got == [True]


@pytest.mark.parametrize("machine", ["cpu-bf16", "A100"])
@pytest.mark.parametrize("profile", ["fast", "exact"])
def test_a_decorated_call_leaves_nothing_wherever_it_is_interrupted(machine: str, profile: str) -> None:
    with pretend_hardware(machine):
        call: Callable[[], None] = accelerate(profile=profile)(lambda: None)
        call()
        before = look()
        places = []
        for at in interrupted(call):
            places.append(at)
            found = differences(before, look())
            assert not found, f"interrupted at place {at}: {found}"
            assert not in_force()
            call()
        assert len(places) > 10
    assert lock_is_free()
