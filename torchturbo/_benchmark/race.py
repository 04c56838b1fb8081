"""Steps under several settings in turn, round after round, so that a machine that slows down slows down all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torchturbo._benchmark.contenders import Contender
from torchturbo._replay.here import Here

LEAST_SECONDS = 0.02
"""What a sample takes at least, if that takes no more steps than `MOST_STEPS`."""
MOST_STEPS = 64


class Lane:
    """One of those that run.

    Args:
        contender: the settings it runs under.

    Attributes:
        samples: seconds of a step, by round.
        first: seconds of its first step, with all that is done only once.
        failed: what it has raised; None where nothing.
        recompiles: compilations after the first sample.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.samples: dict[int, float] = {}
        self.first: float | None = None
        self.failed: Exception | None = None
        self.recompiles = 0

    def beside(self, other: Lane) -> tuple[list[float], list[float]]:
        """Its samples and those of another one, of the rounds that both have run."""
        rounds = sorted(self.samples.keys() & other.samples.keys())
        return [self.samples[each] for each in rounds], [other.samples[each] for each in rounds]


class Race:
    """Runs steps in turn.

    Args:
        here: the step, and the state that each sample begins from.
        contenders: what it runs under; the first is the baseline, whose exceptions come out.

    Attributes:
        lanes: one for each.
        steps: steps in each sample.
        rounds: how many have been run.
    """

    def __init__(self, here: Here, contenders: Sequence[Contender]) -> None:
        self.lanes = [Lane(contender) for contender in contenders]
        self.steps = 1
        self.rounds = 0
        self._here = here
        self._chance = random.Random(0)

    def add(self, contender: Contender) -> Lane:
        """Takes in one more, which has to be warmed up.

        Args:
            contender: the settings it runs under.
        """
        self.lanes.append(Lane(contender))
        return self.lanes[-1]

    def warm_up(self, lane: Lane) -> None:
        """Runs a lane's first samples, which are not like the others: compiling, choosing kernels, taking memory."""
        lane.first = self._sample(lane, 1)
        if lane.failed is None:
            again = self._sample(lane, 1)
            if lane is self.lanes[0] and again:
                self.steps = max(1, min(MOST_STEPS, round(LEAST_SECONDS / again)))
            if self.steps > 1 and lane.failed is None:
                self._sample(lane, self.steps)

    def round(self, lanes: Sequence[Lane] | None = None) -> None:
        """Runs a sample of each that has not failed, in an order by chance.

        Args:
            lanes: those that run; by default all.
        """
        order = [lane for lane in lanes or self.lanes if lane.failed is None]
        # Who goes second finds the caches as the first has left them.
        self._chance.shuffle(order)
        for lane in order:
            with _counting() as compiled:
                seconds = self._sample(lane, self.steps)
            lane.recompiles += compiled()
            if seconds is not None:
                lane.samples[self.rounds] = seconds
        self.rounds += 1

    def seconds_of_a_round(self) -> float:
        """What a round will take, with what is put back after each sample; after a warm-up."""
        began = time.perf_counter()
        self.round()
        return time.perf_counter() - began

    def _sample(self, lane: Lane, steps: int) -> float | None:
        try:
            return self._here.seconds(lane.contender.around, steps) / steps
        except Exception as error:
            if lane is self.lanes[0]:
                raise
            lane.failed = error.with_traceback(None)
            return None


@contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    """A block that counts the graphs that are compiled in it."""
    before = _graphs()
    yield lambda: _graphs() - before


def _graphs() -> int:
    import sys

    utils: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])
