"""Data loaders that are iterated in a block that monitors: each batch that a loop takes is timed.

It is the code of `_BaseDataLoaderIter.__next__` that is exchanged, so that iterators stay torch's own. The time is
`torchturbo._watch`'s to measure, which is above this and loaded with the first batch.
"""

from __future__ import annotations

import inspect
import os
import threading
from typing import Any

from torch.utils.data import dataloader, get_worker_info

from torchturbo._amounts import some
from torchturbo._dynamo import untraced
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw


class Monitor:
    """One entry of a block that monitors.

    Args:
        show: how it is told: ``"auto"``, ``"lines"`` or ``"json"``.
    """

    __slots__ = ("_voice", "loops", "show")

    def __init__(self, show: Any) -> None:
        self.show = show
        self.loops = 0
        """How many have begun in it."""
        self._voice: Any = None

    def voice(self) -> Any:
        """What tells of the loop that begins now, and of those before it."""
        self.loops += 1
        if self._voice is None:
            from torchturbo._watch.voice import Options, Voice

            self._voice = Voice(Options(show=self.show))
        return self._voice

    def __repr__(self) -> str:
        return f"<monitor {self.show}>"


class _Asked:
    """What a thread's region asks for; others read it too, as they do not a `threading.local`."""

    __slots__ = ("monitor",)

    def __init__(self) -> None:
        self.monitor: Monitor | None = None

    def in_force(self) -> bool:
        """Whether it asks for anything."""
        return self.monitor is not None


class _Here(threading.local):
    def __init__(self) -> None:
        self.asked = _Asked()


_here = _Here()
_asking: dict[_Asked, None] = {}
"""The threads that ask for something."""


@untraced
def _next(iterator: Any) -> Any:
    """`_BaseDataLoaderIter.__next__`."""
    asked = _here.asked
    monitor = asked.monitor
    if monitor is None or get_worker_info() is not None:
        return NEXTS.theirs(iterator)
    from torchturbo._watch import taken

    return taken(iterator, lambda: NEXTS.theirs(iterator), monitor.voice, asked.in_force)


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    call: Any = "ours"
    return call(self, *args, **kwargs)


_FUNCTION: Any = inspect.unwrap(dataloader._BaseDataLoaderIter.__next__)
NEXTS = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _next))


def told() -> str | None:
    """How many loops have been watched in this thread's block so far, in words, or None where it asks for nothing."""
    monitor = _here.asked.monitor
    if monitor is None:
        return None
    if not monitor.loops:
        return "no data loader has been iterated in this thread's block yet"
    return f"{some(monitor.loops, 'loop')} over data loaders watched"


def _read() -> Raw:
    return _here.asked.monitor


def _write(raw: Monitor | None, over: Raw) -> None:
    asked = _here.asked
    asked.monitor = raw
    if raw is None:
        _asking.pop(asked, None)
    else:
        _asking[asked] = None
    NEXTS.settle(bool(_asking))


MONITOR = Cell("what monitors loops", "thread", _read, _write)
"""Always written under the lock of the stack."""


def _after_fork() -> None:
    """In a forked child only the thread that forked goes on."""
    for asked in [asked for asked in _asking if asked is not _here.asked]:
        del _asking[asked]
    NEXTS.settle(bool(_asking))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
