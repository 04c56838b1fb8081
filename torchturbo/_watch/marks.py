"""How far all loops of a thread are at a moment, and what came between two."""

from __future__ import annotations

from typing import Any

from torchturbo._watch.cause import Window
from torchturbo._watch.data import Loop
from torchturbo._watch.machine import compiled
from torchturbo._watch.timeline import Timeline, Times


class Mark:
    """How far all was at a moment.

    Args:
        timeline: of the thread.
        now: the moment.
    """

    __slots__ = ("graphs", "now", "runs", "starting", "steps", "times")

    def __init__(self, timeline: Timeline, now: float) -> None:
        runs = list(timeline.runs)
        self.now = now
        self.times: Times = timeline.read(now)
        self.runs = {run: (run.steps, run.samples, run.tokens, run.waiting) for run in runs}
        self.steps = timeline.taken
        self.starting = timeline.starting
        self.graphs = compiled()

    def window(self, last: Mark, of_gpu: float | None) -> Window:
        """What came between two of them.

        Args:
            last: the earlier one.
            of_gpu: how busy the GPU was, 0 to 1, or None.
        """
        times = self.times.since(last.times)
        not_waiting = 1 - times.waiting / (times.total or 1e-9)
        return Window(
            times=times,
            steps=self.steps - last.steps,
            starting=self.starting - last.starting,
            compiled=self.graphs - last.graphs,
            utilization=not_waiting if of_gpu is None else of_gpu,
            of_gpu=of_gpu is not None,
        )

    def loop(self, run: Any, since: Mark) -> Loop:
        """How far a loop is.

        Args:
            run: the loop.
            since: from when on it is told how fast it is; the earlier one.
        """
        steps, samples, tokens, waiting = 0, 0, 0, 0.0
        begun = run.began
        if run in since.runs:
            steps, samples, tokens, waiting = since.runs[run]
            begun = since.now
        took = max(self.now - begun, 1e-9)
        return Loop(
            name=run.name,
            steps=run.steps,
            of=run.of,
            seconds=self.now - run.began,
            steps_per_second=(run.steps - steps) / took,
            samples_per_second=(run.samples - samples) / took if run.samples else None,
            tokens_per_second=(run.tokens - tokens) / took if run.tokens else None,
            waiting=(run.waiting - waiting) / took,
        )
