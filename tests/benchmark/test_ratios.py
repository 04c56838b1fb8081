"""What samples say, held against samples whose truth is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchturbo._benchmark.data import Between
from torchturbo._benchmark.ratios import FEWEST, SURE, between, judged, ratios


def _noisy(chance: random.Random, rounds: int, faster: float) -> Between:
    """The speed-up of one that is faster by that, on a machine that slows down and now and then stalls."""
    base, other = [], []
    for _ in range(rounds):
        weather = chance.choice((1.0, 1.0, 1.3, 2.0))
        one, two = (0.01 * weather * chance.lognormvariate(0, 0.05) for _ in range(2))
        stall = chance.choice((0, 0, 0, 0, 0, 0, 0, 0.03))
        base.append(one + (stall if chance.random() < 0.5 else 0))
        other.append(two / faster)
    return between(ratios(base, other))


def test_what_does_nothing_is_told_so_in_at_least_95_of_100() -> None:
    chance = random.Random(1)
    assert sum(judged(_noisy(chance, 41, 1.0)) == "no difference" for _ in range(1000)) >= 950


def test_a_tenth_faster_is_found_in_at_least_95_of_100() -> None:
    chance = random.Random(2)
    assert sum(judged(_noisy(chance, 41, 1.1)) == "faster" for _ in range(1000)) >= 950


@pytest.mark.parametrize("count", [FEWEST, 9, 20, 41, 100])
def test_the_bounds_hold_the_median_as_often_as_they_say(count: int) -> None:
    chance = random.Random(count)
    held = 0
    for _ in range(2000):
        its = between([chance.expovariate(1.0) for _ in range(count)])
        held += its.low <= 0.6931471805599453 <= its.high
    assert held >= 2000 * (SURE - 0.007)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60))
def test_bounds_are_samples_around_the_median(samples: list[float]) -> None:
    its = between(samples)
    assert its.low <= its.value <= its.high
    assert {its.low, its.high} <= set(samples)


def test_fewer_samples_have_wider_bounds() -> None:
    chance = random.Random(3)
    samples = [chance.random() for _ in range(200)]
    few, many = between(samples[:20]), between(samples)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.2, 1.1, 1.3, "faster"),
        (0.8, 0.7, 0.9, "slower"),
        (1.2, 0.9, 1.5, "no difference"),
        (1.005, 1.001, 1.009, "no difference"),
        (0.995, 0.991, 0.999, "no difference"),
    ],
)
def test_a_verdict_is_of_the_bounds(value: float, low: float, high: float, verdict: str) -> None:
    assert judged(Between(value, low, high)) == verdict
