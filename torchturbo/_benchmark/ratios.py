"""What samples say: a median, between what it lies, and whether two things differ."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import comb
from typing import Literal

from torchturbo._benchmark.data import Between

Verdict = Literal["faster", "slower", "no difference"]

FEWEST = 8
"""Samples: with fewer no interval holds the median 99 times in 100."""
SURE = 0.99
"""How often an interval holds the median of ever more rounds."""
SMALL = 0.01
"""A difference below one percent is called none: where code and data come to lie in memory makes as much."""


def between(samples: Sequence[float], sure: float = SURE) -> Between:
    """The median of samples, and the bounds between which the median of ever more of them lies.

    The bounds are samples themselves: how many samples fall below the true median is binomial, however they are
    distributed (David and Nagaraja, Order Statistics, 7.1). So nothing is assumed of the noise but that each round's is
    its own.

    Args:
        samples: at least one.
        sure: how often the bounds are to hold the median, if there are samples enough.
    """
    ordered = sorted(samples)
    rank = _rank(len(ordered), sure)
    return Between(statistics.median(ordered), ordered[rank], ordered[-1 - rank])


def _rank(count: int, sure: float) -> int:
    """How many samples may lie beyond each bound."""
    beyond, rank = 0.0, 0
    while rank < count // 2:
        beyond += comb(count, rank) / 2**count
        if 2 * beyond > 1 - sure:
            break
        rank += 1
    return max(0, rank - 1)


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """One sample by another, round by round: what slows a round down slows down both."""
    return [one / other for one, other in zip(over, under, strict=True)]


def judged(speedup: Between) -> Verdict:
    """Whether a speed-up is one.

    Args:
        speedup: the time of the baseline by the time of the other; 2.0 is half the time.
    """
    if speedup.low > 1 and speedup.value > 1 + SMALL:
        return "faster"
    if speedup.high < 1 and speedup.value < 1 - SMALL:
        return "slower"
    return "no difference"
