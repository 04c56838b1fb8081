"""Steps under several settings in turn, round after round, so that a machine that slows down slows down all of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil

import torch

from torchturbo import hardware
from torchturbo._benchmark.contenders import Contender
from torchturbo._benchmark.ratios import FEWEST
from torchturbo._replay.here import Here
from torchturbo._together import agreed
from torchturbo._watch.machine import compiled as graphs

LEAST_SECONDS = 0.02
"""What a sample takes at least, if that takes no more steps than `MOST_STEPS`."""
MOST_STEPS = 64
SHORTEST_SECONDS = 0.002
"""What a sample takes at least, where the time is short: a thousand times what the clock and its calls take."""
ENOUGH = 41
"""Rounds from which on longer samples are worth more than more of them."""
MOST = 301
"""Rounds: what more of them would tell is nobody's time worth."""
BUSY_SECONDS = 1.2
"""How long a lane runs for a look at how busy the GPU is: NVML tells of the last second."""
_PROFILED = "memory was not measured: a profiler is running in this thread, and torch has no room for a second one"


class Lane:
    """One of those that run.

    Args:
        contender: the settings it runs under.

    Attributes:
        samples: seconds of a step, by round.
        first: seconds of its first step, with all that is done only once.
        failed: what it has raised; None where nothing.
        recompiles: compilations after the first sample.
        memory: bytes of tensors that a step has at once at its peak; None where nobody has looked, or could.
        utilization: percent of the time in which the GPU was busy; None where there is none that tells.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.samples: dict[int, float] = {}
        self.first: float | None = None
        self.failed: Exception | None = None
        self.recompiles = 0
        self.memory: int | None = None
        self.utilization: float | None = None

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
        notes: what could not be measured, as sentences.
    """

    def __init__(self, here: Here, contenders: Sequence[Contender]) -> None:
        self.lanes = [Lane(contender) for contender in contenders]
        self.steps = 1
        self.rounds = 0
        self.notes: list[str] = []
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
            while self.steps > 1 and lane.failed is None:
                try:
                    self._sample(lane, self.steps)
                    break
                except StopIteration:
                    self.steps //= 2  # of batches, fewer are left

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

    def fit(self, seconds: float) -> int:
        """Runs a round, has samples take fewer steps where that makes for more rounds, and says how many there will be.

        Many short samples tell more than a few long ones, as long as they are long enough for the clock.

        Args:
            seconds: how long the rounds may take, all together.
        """
        took = self.seconds_of_a_round()
        samples = [each for lane in self.lanes for each in lane.samples.values()]
        shortest = max(1, ceil(SHORTEST_SECONDS / statistics.median(samples)))
        wanted = max(shortest, int(self.steps * seconds / took / ENOUGH))
        if wanted < self.steps:
            self.steps = wanted
            took = self.seconds_of_a_round()
        return max(FEWEST, min(MOST, int(seconds / max(took, 1e-9))))

    def look(self, lane: Lane) -> None:
        """Looks at a lane's memory, and at how busy it keeps the GPU, in runs of their own that nobody times."""
        for kind in (self._memory, self._utilization):
            if lane.failed is None:
                try:
                    kind(lane)
                except Exception as error:
                    self._fails(lane, error)

    def _memory(self, lane: Lane) -> None:
        try:
            lane.memory = self._here.memory(lane.contender.around)
        except StopIteration:
            self.notes.append(f"memory of {lane.contender.name} was not measured: it takes two steps, and batches end")
        except RuntimeError as error:
            if "rofiler is already enabled" not in str(error):
                raise
            if _PROFILED not in self.notes:
                self.notes.append(_PROFILED)

    def _utilization(self, lane: Lane) -> None:
        if lane.samples and agreed(len(hardware.readings())) > 0:
            # What is taken of iterators is kept until it has been given again.
            enough = ceil(BUSY_SECONDS / statistics.median(lane.samples.values()))
            steps = agreed(self.steps if self._here.keeper.has_positions else max(1, enough))
            lane.utilization = self._here.afterwards(lane.contender.around, steps, _busy)

    def _fails(self, lane: Lane, error: Exception) -> None:
        if lane is self.lanes[0]:
            raise error
        lane.failed = error.with_traceback(None)

    def seconds_of_a_round(self) -> float:
        """What a round will take, with what is put back after each sample; after a warm-up."""
        began = time.perf_counter()
        self.round()
        return agreed(time.perf_counter() - began)

    def _sample(self, lane: Lane, steps: int) -> float | None:
        try:
            return self._here.seconds(lane.contender.around, steps) / steps
        except Exception as error:
            self._fails(lane, error)
            return None


def _busy() -> float | None:
    """Percent of the last moments in which a kernel ran, on the GPU that torch uses."""
    index = torch.cuda.current_device()
    return next(
        (float(its.utilization) for its in hardware.readings() if its.index == index and its.utilization is not None),
        None,
    )


@contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    """A block that counts the graphs that are compiled in it."""
    before = graphs()
    yield lambda: graphs() - before
