"""What determinism costs: the median of ratios, an interval around it, and honesty about noise."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from torchturbo import PROFILES, check_reproducible, turbo
from torchturbo._reproducible.price import price_of, priced


def test_the_price_is_the_median_of_ratios_of_each_round() -> None:
    found = price_of([(1.0, 1.5), (2.0, 3.0), (1.0, 1.4), (1.0, 1.6), (10.0, 15.0), (1.0, 1.7), (1.0, 1.3)])
    assert (found.ratio, found.low, found.high, found.seconds, found.rounds) == (1.5, 1.3, 1.7, 1.0, 7)
    assert not found.is_noise


def test_an_interval_around_one_is_noise() -> None:
    found = price_of([(1.0, 0.9), (1.0, 1.1), (1.0, 1.01), (1.0, 0.99), (1.0, 1.02), (1.0, 0.98)])
    assert (found.low, found.high) == (0.9, 1.1)
    assert found.is_noise


def test_the_interval_grows_narrower_with_more_rounds() -> None:
    found = price_of([(1.0, 1 + n / 100) for n in range(101)])
    assert found.ratio == 1.5
    assert (found.low, found.high) == (1.4, 1.6)


class Clock:
    """Takes the time that it is told to, by the settings it runs under."""

    def __init__(self, plain: float, reproducible: float) -> None:
        self.seconds_of = {False: plain, True: reproducible}
        self.asked: list[dict[str, Any]] = []

    def seconds(self, block: turbo | nullcontext[None]) -> float:
        settings: dict[str, Any] = {}
        if isinstance(block, turbo):
            settings = dict(block._overrides)
            if block._profile.name in PROFILES:
                settings["profile"] = block._profile.name
        self.asked.append(settings)
        return self.seconds_of[settings.get("profile") == "reproducible"]


def priced_by(clock: Clock, settings: dict[str, Any], seconds: float = 20.0) -> Any:
    return priced(clock, settings, seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "cheap"),
    [
        ({}, {}),
        ({"profile": "fast", "num_threads": 1}, {"profile": "fast", "num_threads": 1}),
        ({"profile": "reproducible", "num_threads": 1}, {"num_threads": 1}),
    ],
)
def test_as_it_is_and_reproducible_are_timed_equally_often(settings: dict[str, Any], cheap: dict[str, Any]) -> None:
    clock = Clock(1.0, 1.5)
    found = priced_by(clock, settings)
    assert (found.ratio, found.rounds) == (1.5, 8)
    dear = {**{name: value for name, value in cheap.items() if name != "profile"}, "profile": "reproducible"}
    assert clock.asked.count(cheap) == clock.asked.count(dear) == 8 + 2
    assert clock.asked[4:] != [cheap, dear] * 8, "who goes first changes"


def test_no_price_has_a_reason() -> None:
    assert priced_by(Clock(1, 1), {}, 0) == "price_seconds=0 asks for none"
    assert priced_by(Clock(3, 3), {}) == "6 rounds of 6 s are more than price_seconds=20; give it more"
    clock = Clock(1, 1)
    clock.seconds_of = {}
    assert priced_by(clock, {}) == "a run raised KeyError: False"


def test_an_operation_without_a_deterministic_kernel_has_no_price() -> None:
    def step() -> int:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("put_ does not have a deterministic implementation.\nMore.")
        return 1

    found = check_reproducible(step)
    assert found.identical
    assert found.price is None
    assert "Its price was not measured: a run raised RuntimeError: put_ does not have a deterministic" in str(found)


def test_a_price_is_part_of_what_was_found() -> None:
    before = torch.ones(64, 64)
    found = check_reproducible(lambda: before @ before, price_seconds=0.5)
    assert found.price is not None
    assert found.price.low <= found.price.ratio <= found.price.high
    assert found.price.rounds >= 6
    told = found.to_dict()["price"]
    assert told["ratio"] == found.price.ratio
    assert 'profile "reproducible"' in str(found)
