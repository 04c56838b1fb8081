"""Ways to do the same work that take turns in one process, so that what else the machine does falls on all alike."""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

WARM_UP = 5
"""Rounds that nobody counts."""

Samples = dict[str, list[float]]


def bars(live: bool = False) -> Progress:
    """How far a benchmark is, on standard error.

    Args:
        live: draws it again and again by a thread, which takes time from what is timed; else `counted` draws it.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(file=sys.stderr), auto_refresh=live)


def counted(progress: Progress, name: str, total: int) -> Callable[[], None]:
    """A new bar, and what moves it on by one.

    Args:
        progress: of `bars`.
        name: beside the bar.
        total: where it ends.
    """
    bar = progress.add_task(name, total=total)

    def on() -> None:
        progress.update(bar, advance=1, refresh=True)

    return on


def take_turns(
    ways: Mapping[str, Callable[[int], object]], steps: int, rounds: int, watch: Callable[[], object]
) -> Samples:
    """Microseconds for a step, by way, a sample a round.

    Args:
        ways: each does as many steps as it is asked to.
        steps: in one timed burst.
        rounds: how often each way has its turn, in an order of chance.
        watch: called after each round.
    """
    samples: Samples = {name: [] for name in ways}
    order, chance = list(ways), random.Random(0)
    for each in range(-WARM_UP, rounds):
        # Who goes after whom changes, as each finds the caches as the one before left them.
        chance.shuffle(order)
        for name in order:
            began = time.perf_counter()
            ways[name](steps)
            taken = (time.perf_counter() - began) / steps * 1e6
            if each >= 0:
                samples[name].append(taken)
        watch()
    return samples


def middle(samples: Sequence[float]) -> dict[str, Any]:
    """The median and the mean, the middle half, and where the median of ever more such samples lies, 19 times in 20.

    Args:
        samples: four of them or more.
    """
    ordered, count = sorted(samples), len(samples)
    # The ranks between which the true median lies: how many samples fall below it is binomial.
    reach = math.ceil(0.98 * math.sqrt(count))
    low, high = max(0, count // 2 - reach), min(count - 1, (count - 1) // 2 + reach)
    quartiles = statistics.quantiles(ordered, n=4)
    return {
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "middle_half": [quartiles[0], quartiles[2]],
        "surely_between": [ordered[low], ordered[high]],
    }


def compare(samples: Samples, way: str, base: str) -> dict[str, Any]:
    """What a step of one way takes, and what it takes beyond another one's step, round by round.

    Args:
        samples: of `take_turns`.
        way: by name, as `base`.
        base: what it is compared with.
    """
    pairs = list(zip(samples[way], samples[base], strict=True))
    return {
        "compared_with": base,
        "us": middle(samples[way]),
        "ratio": middle([ours / theirs for ours, theirs in pairs]),
        "extra_us": middle([ours - theirs for ours, theirs in pairs]),
    }
