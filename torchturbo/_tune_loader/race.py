"""Candidates for a loader's settings, visited in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

from torchturbo._benchmark.ratios import ratios
from torchturbo._together import agreed, on_all
from torchturbo._tune_loader import words
from torchturbo._tune_loader.data import Outcome
from torchturbo._tune_loader.loaders import Source
from torchturbo._tune_loader.measure import Meter, Visit, slowest
from torchturbo._words import size
from torchturbo.errors import in_a_line
from torchturbo.hardware import _room

_ENOUGH = 1.05
"""An epoch that takes this many times the shortest one is as short: fewer workers are worth that."""
_FEWEST = 3
"""Rounds before something is called faster that torch would not do by itself."""


class Candidate:
    """Settings in the race.

    Args:
        options: of the `DataLoader` call.

    Attributes:
        visits: what has been seen, by round.
        why: how it failed, or why it is not to be had, as a sentence.
        outcome: what came of it.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.visits: dict[int, Visit] = {}
        self.why = ""
        self.outcome: Outcome | None = None

    @property
    def cost(self) -> tuple[int, int, bool]:
        """What it takes of the machine, to be compared."""
        return self.options["num_workers"], self.options.get("prefetch_factor", 0), self.options["pin_memory"]

    @property
    def memory(self) -> int:
        """Bytes at the most."""
        return max(visit.memory for visit in self.visits.values())

    @property
    def startup(self) -> float:
        """Seconds to the first batch, the median."""
        return median(visit.startup for visit in self.visits.values())


class Race:
    """Times candidates in turn.

    Args:
        source: what they load.
        step_seconds: what a step takes, if that is said.
        seconds: for the measured part of each visit.
        tell: of what is going on.

    Attributes:
        all: the candidates, in their order.
        rounds: how often it went around.
    """

    def __init__(self, source: Source, step_seconds: float | None, seconds: float, tell: Callable[[str], None]) -> None:
        self.all: list[Candidate] = []
        self.rounds = 0
        self.meter = Meter(source)
        self._source, self._step, self._seconds, self._tell = source, step_seconds, seconds, tell
        self._free = agreed(_room.memory())

    def enter(self, options: dict[str, Any]) -> Candidate:
        """The candidate with these settings; a new one where there is none."""
        for each in self.all:
            if each.options == options:
                return each
        self.all.append(Candidate(options))
        return self.all[-1]

    def round(self, candidates: Iterable[Candidate], until: float) -> bool:
        """Visits each of them once, and returns whether there was time for all.

        Args:
            candidates: in this order.
            until: when no other visit begins, by `time.perf_counter`.
        """
        self.rounds += 1
        errors: list[Exception] = []
        for each in candidates:
            if each.outcome is not None:
                continue
            if self.rounds > 1 and agreed(time.perf_counter() > until):
                return False
            self._tell(words.options(each.options))
            try:
                visit = partial(self.meter.visit, each.options, self._seconds)
                each.visits[self.rounds] = on_all(visit, slowest)
            except Exception as error:
                # What the dataset raises as it was read before is the user's to see.
                if not each.options["num_workers"] and not self._source.baseline["num_workers"]:
                    raise
                each.outcome, each.why = "failed", in_a_line(error)
                errors.append(error)
                continue
            more = each.memory - min(its.memory for its in self.all if its.visits)
            if self._free is not None and more > self._free // 2:
                each.outcome = "too large"
                each.why = f"{size(more)} more than without, and {size(self._free)} were free"
        if errors and not any(each.visits for each in self.all):
            raise errors[0]
        return True

    def samples(self, candidate: Candidate) -> dict[int, float]:
        """Seconds of an epoch, by round."""
        return {number: self.epoch(candidate, visit) for number, visit in candidate.visits.items()}

    def epoch(self, candidate: Candidate, visit: Visit) -> float:
        """Seconds of an epoch of the user's, as one visit has it."""
        step = self._step or 0.0
        alone = candidate.options["num_workers"] == 0
        return visit.startup + self._source.batches * (visit.each + step if alone else max(visit.each, step))

    def median(self, candidate: Candidate) -> float:
        """Seconds of an epoch, the median."""
        return median(self.samples(candidate).values())

    def running(self, among: Iterable[Candidate]) -> list[Candidate]:
        """Those of them that were timed and are to be had."""
        return [each for each in among if each.visits and each.outcome is None]

    @property
    def tolerated(self) -> float:
        """Seconds of an epoch that is as short as the shortest."""
        return _ENOUGH * min(map(self.median, self.running(self.all)))

    def enough(self, among: Iterable[Candidate]) -> Candidate:
        """The one that costs least of those that are as fast as the fastest."""
        running = self.running(among)
        fastest = min(map(self.median, running))
        return min((each for each in running if self.median(each) <= _ENOUGH * fastest), key=lambda each: each.cost)

    def is_faster(self, one: Candidate, other: Candidate) -> bool:
        """Whether one is faster than another by more than what is called as fast, in the rounds that both were in."""
        if not self.running([one]):
            return False
        ours, theirs = self.samples(one), self.samples(other)
        both = sorted(ours.keys() & theirs.keys())
        speedup = ratios([theirs[number] for number in both], [ours[number] for number in both])
        return len(both) >= _FEWEST and median(speedup) > _ENOUGH and min(speedup) > 1

    def drop_losers(self, among: Iterable[Candidate], stays: Candidate) -> list[Candidate]:
        """Those that are not surely slower than the fastest."""
        running = self.running(among)
        fastest = min(running, key=self.median)
        best = max(self.samples(fastest).values())
        return [each for each in running if each is stays or min(self.samples(each).values()) <= best]
