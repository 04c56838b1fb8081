"""The loops of a thread while they are watched: looked at in the background, told of, and ended."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter as clock
from typing import Any

from torchturbo import hardware
from torchturbo._dynamo import untraced
from torchturbo._watch import timeline as _timeline
from torchturbo._watch.cause import Window
from torchturbo._watch.data import Seen
from torchturbo._watch.lines import prompt
from torchturbo._watch.machine import OfMachine, compiled, current_gpu, of_machine
from torchturbo._watch.marks import Mark
from torchturbo._watch.timeline import WAITING, Holder, Timeline
from torchturbo._watch.voice import Voice

_LOOK = 0.05
"""Seconds between two looks at the thread's stack, while lines are sought."""
_ASK = 0.25
"""Seconds between two questions whether a region is still in force, which may end in the middle of a loop."""
_OF_LATE = 30
"""How many looks at the machine are what is told of as being of late."""
_JOIN = 2.0
"""Seconds that the end of a loop waits for what looks at it, which a driver that hangs may hold."""


class Session:
    """What is watched in one thread, from the beginning of its outermost loop to its end.

    Args:
        holder: of the thread.
        timeline: where the thread's time goes.
        voice: tells of it.
        in_force: whether somebody still wants it to be watched; None where that ends with the loop.

    Attributes:
        pending: what is to be alerted of, which the thread itself does at its next batch.
        last: what it was in all, once it has ended.
    """

    def __init__(self, holder: Holder, timeline: Timeline, voice: Voice, in_force: Callable[[], bool] | None) -> None:
        self.holder, self.timeline, self.voice = holder, timeline, voice
        self.pending: Window | None = None
        self.last: Seen | None = None
        self._in_force = in_force
        self._pid = os.getpid()
        self._gpu = current_gpu()
        self._graphs = compiled()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # a collection in it may drop another loop's iterator
        self._ended = self._seeking = False
        self._began = clock()
        self._marks: deque[Mark] = deque([Mark(self.timeline, self._began)], maxlen=_OF_LATE)
        self._first = self._marks[0]
        self._machine = OfMachine()
        self._busy: deque[float] = deque(maxlen=_OF_LATE)

    # ---------------------------------------------------------------------------------------- in the loop's own thread

    @untraced
    def start(self) -> None:
        """Begins to look, with a thread of its own, if there is anything to look for."""
        _timeline.hear(self)
        if not self.voice.options.looks:
            return
        self.voice.begin()
        self._thread = threading.Thread(target=self._look, name="torchturbo.watch", daemon=True)
        self._thread.start()

    def stepped(self) -> None:
        """A loop has had its first batch, or there is something to be told in its thread."""
        if self._gpu is None:
            self._gpu = current_gpu()
        window, self.pending = self.pending, None
        if window is not None:
            from torchturbo._watch.alert import alert

            alert(window, self)

    def end(self) -> None:
        """Ends what looks, tells what it was in all, and alerts if that is still to be done."""
        self._stop.set()  # first of all, as an interrupt may end this anywhere
        _timeline.hear_no_more(self)
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if os.getpid() != self._pid:
            return  # a fork has no thread that looks, and is not the one to tell
        self.holder.timeline = self.holder.session = None
        if self._thread is not None and self._thread is not threading.current_thread():
            with suppress(RuntimeError):  # an interrupt came while it was started: if it comes to run, it ends at once
                self._thread.join(_JOIN)
        now = clock()
        if len(self._marks) == 1:
            self._machine = of_machine(self._gpu, lambda: ())  # it was over before anybody has looked
        self._mark(now)
        self.last = self.seen(now, over=True)
        if self._thread is not None:
            self.voice.end(self.last)
        self.voice.recompiled += self._recompiled()
        self.voice.begun = True

    # -------------------------------------------------------------------------------------------------- beside the loop

    def _look(self) -> None:
        options = self.voice.options
        due = clock() + options.every
        left = 0
        try:
            # Epochs may be over before the first look: what the last one was is what this one is looked at for.
            self._seek()
            with hardware.reader() as read:
                while not self._stop.wait(self._rest(due)):
                    left = 0 if self._in_force is None or self._in_force() else left + 1
                    if left > 1:
                        self._let_go()
                        return
                    if self._seeking:
                        self._look_at_lines()
                    now = clock()
                    if now >= due:
                        due = now + options.every
                        self._look_at_machine(now, read)
                        self.voice.tell(self.seen(now))
                        self._seek()
        finally:
            self._seek(False)

    def _rest(self, due: float) -> float:
        """Seconds until there is something to do: each waking may take the core, and Python's lock, from the loop."""
        soon = _LOOK if self._seeking else _ASK if self._in_force is not None else threading.TIMEOUT_MAX
        return min(soon, max(0.0, due - clock()))

    def _seek(self, needed: bool | None = None) -> None:
        """Looks for lines from now on if the machine is not busy, and nobody knows yet why."""
        judge = self.voice.judge
        if needed is None:
            needed = judge is not None and not judge.told and self.voice.busy < judge.threshold
        if needed != self._seeking:
            self._seeking = needed
            (prompt.begin if needed else prompt.end)()

    def _look_at_lines(self) -> None:
        timeline = self.timeline
        fetching, phase = timeline.fetching, timeline.at[0]
        # What workers do is not seen here, only that this thread waits for them.
        if phase is not WAITING or fetching is None or not fetching.workers:
            self.voice.lines.look(timeline.ident, phase)

    def _look_at_machine(self, now: float, read: Any) -> None:
        self._machine = of_machine(self._gpu, read)
        self._mark(now)

    def _mark(self, now: float) -> None:
        """Judges what came since the last look."""
        last, mark = self._marks[-1], Mark(self.timeline, now)
        self._marks.append(mark)
        window = mark.window(last, self._machine.utilization)
        self._busy.append(window.utilization)
        self.voice.busy = window.utilization
        judge = self.voice.judge
        # The first step compiles, warms up and fills caches.
        if judge is not None and (last.steps > 1 or self.voice.begun):
            found = judge.add(window)
            if found is not None:
                self.pending = found

    def _let_go(self) -> None:
        """Ends by itself, as nobody wants to know any more."""
        for run in list(self.timeline.runs):
            run.session = None
        self.end()

    # ----------------------------------------------------------------------------------------------------- what is seen

    def _recompiled(self) -> int:
        first = self._first_graphs if self._first_graphs is not None else compiled()
        return compiled() - first

    @property
    def _first_graphs(self) -> int | None:
        """Graphs that were there once the first step of all was over, or None before that."""
        if self.voice.begun:
            return self._graphs
        return next((mark.graphs for mark in self._marks if mark.steps > 1), None)

    def seen(self, now: float, *, over: bool = False) -> Seen:
        """What was seen of late, or of the whole.

        Args:
            now: by the clock.
            over: whether the outermost loop is over, and it is the whole that is asked for.
        """
        mark, since = Mark(self.timeline, now), self._first if over else self._marks[0]
        times = mark.times.since(since.times)
        total = times.total or 1e-9
        runs = list(self.timeline.runs)
        scaler = self.timeline.scaler
        busy = list(self._busy)
        return Seen(
            loops=tuple(mark.loop(run, since) for run in runs),
            seconds=now - self._began,
            waiting=times.waiting / total,
            computing=times.computing / total,
            optimizer=times.optimizer / total,
            utilization=sum(busy) / len(busy) if busy else 1 - times.waiting / total,
            machine=self._machine,
            recompiles=self.voice.recompiled + self._recompiled(),
            scale=None if scaler is None else scaler.get_scale(),
            skipped_steps=None if scaler is None else scaler.skipped_steps,
            over=over,
        )
