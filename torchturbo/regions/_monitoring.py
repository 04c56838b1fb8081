"""Data loaders that are iterated in a block that monitors: each batch that a loop takes is timed.

It is the code of `_BaseDataLoaderIter.__next__` that is exchanged, so that iterators stay torch's own. The time is
`torchturbo._watch`'s to measure, which is above this and loaded with the first batch.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

from torch.utils.data import dataloader

from torchturbo._dynamo import untraced
from torchturbo._words import some
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Exchange, code_like


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


@cache
def _taken() -> Any:
    """Imported once: at every batch, to import costs as much as all the rest."""
    from torchturbo._watch import taken

    return taken


@untraced
def _next(iterator: Any) -> Any:
    """`_BaseDataLoaderIter.__next__`."""
    asked = _ASKING.thread.its
    monitor: Monitor | None = asked.wanted
    if monitor is None:
        return _NEXTS.theirs(iterator)
    return _taken()(iterator, partial(_NEXTS.theirs, iterator), monitor.voice, lambda: asked.wanted is not None)


def _standing_in(self: Any) -> Any:
    call: Any = "ours"
    return call(self)


_FUNCTION: Any = inspect.unwrap(dataloader._BaseDataLoaderIter.__next__)
_NEXTS = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _next))
_ASKING = Asking(Asked, _NEXTS.settle)
MONITOR = _ASKING.cell("what monitors loops")
"""The `Monitor` of a thread's region."""


def told() -> str | None:
    """How many loops have been watched in this thread's block so far, in words, or None where it asks for nothing."""
    monitor: Monitor | None = _ASKING.thread.its.wanted
    if monitor is None:
        return None
    if not monitor.loops:
        return "no data loader has been iterated in this thread's block yet"
    return f"{some(monitor.loops, 'loop')} over data loaders watched"
