"""Where a thread's time goes while a loop in it is watched: waiting for data, optimizers' steps, and the rest."""

from __future__ import annotations

import os
import threading
from time import perf_counter as clock
from typing import Any, Literal, NamedTuple

from torchturbo._dynamo import untraced
from torchturbo.regions._here import thread as regions_here
from torchturbo.regions._steps import hear_no_steps, hear_steps

Phase = Literal["waiting", "computing", "optimizer"]
WAITING: Phase = "waiting"
COMPUTING: Phase = "computing"
OPTIMIZER: Phase = "optimizer"


class Times(NamedTuple):
    """Seconds, by where they went."""

    waiting: float = 0.0
    computing: float = 0.0
    optimizer: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.waiting + self.computing + self.optimizer

    def since(self, earlier: Times) -> Times:
        """What has come to them.

        Args:
            earlier: what they were.
        """
        return Times(*(now - was for now, was in zip(self, earlier, strict=True)))


_At = tuple[Phase, float, float, float, float]
"""What goes on, since when, and what was before that: seconds of waiting, computing and the optimizer."""


class Timeline:
    """One thread's time, from the beginning of its outermost loop on.

    Whoever reads it does so in another thread, so all that changes together is one tuple.

    Args:
        now: when it begins, by `time.perf_counter`.

    Attributes:
        ident: the thread that took the last batch.
        at: what goes on.
        runs: the loops that are open, outermost first.
        fetching: the loop whose batch is being waited for.
        scaler: what scales gradients in the region that the last step was in.
        starting: seconds of waiting for first batches.
        taken: batches of all loops.
    """

    __slots__ = ("at", "fetching", "ident", "runs", "scaler", "starting", "stepping", "taken")

    def __init__(self, now: float) -> None:
        self.at: _At = (COMPUTING, now, 0.0, 0.0, 0.0)
        self.ident = threading.get_ident()
        self.runs: list[Any] = []
        self.fetching: Any = None
        self.scaler: Any = None
        self.stepping = self.taken = 0
        self.starting = 0.0

    @untraced
    def turns_to(self, phase: Phase, now: float) -> Phase:
        """Something else goes on from now on; returns what has gone on.

        Args:
            phase: what begins.
            now: when.
        """
        was, since, waiting, computing, optimizer = self.at
        if was is COMPUTING:
            computing += now - since
        elif was is WAITING:
            waiting += now - since
        else:
            optimizer += now - since
        self.at = phase, now, waiting, computing, optimizer
        return was

    def read(self, now: float) -> Times:
        """Where the time went until now, with what goes on.

        Args:
            now: when that is.
        """
        phase, since, *before = self.at
        times = Times(*before)
        return times._replace(**{phase: getattr(times, phase) + max(0.0, now - since)})


class Holder:
    """What a thread is in: reached by others too, as `threading.local` is not."""

    __slots__ = ("session", "timeline", "within")

    def __init__(self) -> None:
        self.timeline: Timeline | None = None
        self.session: Any = None
        self.within = 0


class _Here(threading.local):
    def __init__(self) -> None:
        self.holder = Holder()


here = _Here()


# --------------------------------------------------------------------------------------------- the optimizer's steps

_KEY = "torchturbo.watch"
_lock = threading.RLock()
_hearing: dict[object, None] = {}
"""Who wants to be told of steps."""


@untraced
def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    timeline = here.holder.timeline
    if timeline is not None and timeline.at[0] is COMPUTING:
        timeline.turns_to(OPTIMIZER, clock())
        timeline.stepping = id(optimizer)
        timeline.scaler = regions_here.here.scaler or timeline.scaler


@untraced
def _after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    timeline = here.holder.timeline
    if timeline is not None and timeline.at[0] is OPTIMIZER and timeline.stepping == id(optimizer):
        timeline.turns_to(COMPUTING, clock())


def _after_fork() -> None:
    """In a forked child nobody holds the lock, and no loop is watched."""
    global _lock
    _lock = threading.RLock()
    _hearing.clear()
    _settle()
    here.holder.timeline = here.holder.session = None
    here.holder.within = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hear(who: object) -> None:
    """Has torch tell of each `Optimizer.step`, until `hear_no_more`.

    Args:
        who: wants it.
    """
    with _lock:
        _hearing[who] = None
        _settle()


def hear_no_more(who: object) -> None:
    """Ends what `hear` has begun, if it has.

    Args:
        who: wants it no more.
    """
    with _lock:
        _hearing.pop(who, None)
        _settle()


def _settle() -> None:
    if _hearing:
        hear_steps(_KEY, _before_step, _after_step)
    else:
        hear_no_steps(_KEY)
