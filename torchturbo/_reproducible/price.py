"""What determinism costs: a run as it is and one under the profile "reproducible", in turn."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence

from torchturbo._replay.here import Here
from torchturbo._replay.settings import Settings, around
from torchturbo._reproducible.data import Price
from torchturbo.errors import in_a_line

FEWEST, MOST = 6, 101
"""Rounds: with fewer than six no interval holds the median 19 times in 20."""


def priced(here: Here, settings: Settings, seconds: float, tell: Callable[[str], None] = lambda _: None) -> Price | str:
    """The price of a function's run, or why there is none, as half a sentence.

    Args:
        here: the function.
        settings: what it runs under as it is.
        seconds: that may be spent.
        tell: of what is going on.
    """
    if seconds <= 0:
        return "price_seconds=0 asks for none"
    options = {name: value for name, value in settings.items() if name != "profile"}
    dear = {**options, "profile": "reproducible"}
    cheap = options if settings.get("profile") == "reproducible" else settings
    try:
        as_it_is, under = around(cheap), around(dear)
        # What is only done once (kernels chosen, memory taken) is nobody's price.
        once = here.seconds(as_it_is) + here.seconds(under)
        if once < seconds:
            once = here.seconds(as_it_is) + here.seconds(under)
        rounds = min(MOST, int(seconds / max(once, 1e-9)))
        if rounds < FEWEST:
            return f"{FEWEST} rounds of {once:.3g} s are more than price_seconds={seconds:g}; give it more"
        samples = []
        chance = random.Random(0)
        for number in range(rounds):
            tell(f"price: round {number + 1} of {rounds}")
            # Who goes second finds the caches as the other one left them.
            if chance.random() < 0.5:
                first = here.seconds(as_it_is)
                samples.append((first, here.seconds(under)))
            else:
                second = here.seconds(under)
                samples.append((here.seconds(as_it_is), second))
    except Exception as error:
        return f"a run raised {in_a_line(error).rstrip('.')}"
    return price_of(samples)


def price_of(samples: Sequence[tuple[float, float]]) -> Price:
    """The price that pairs of times come to.

    Args:
        samples: seconds as it is, and under the profile, a pair a round.
    """
    ratios = sorted(dear / cheap for cheap, dear in samples)
    count = len(ratios)
    # The ranks between which the true median lies: how many samples fall below it is binomial.
    reach = math.ceil(0.98 * math.sqrt(count))
    low, high = ratios[max(0, count // 2 - reach)], ratios[min(count - 1, (count - 1) // 2 + reach)]
    return Price(statistics.median(ratios), low, high, statistics.median(cheap for cheap, _ in samples), count)
