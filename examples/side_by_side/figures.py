"""The figures of a race: how long steps took, and how far apart losses and weights came."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from examples.side_by_side.race import Arm, Race

QUIET = 1.15
"""How far apart the quartiles of equal steps may lie, as a ratio, on a machine that does nothing else."""


@dataclass(frozen=True)
class Spread:
    """The middle of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The quartiles of `samples`, of which there is at least one."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Apart:
    """How far one arm came from plain float32.

    Attributes:
        held_out_loss: the root mean square of the differences in held-out loss, at all looks after the start.
        final_held_out_loss: the last of these differences, with its sign.
        weights: the distance between the weights, as a share of how far plain float32 moved them.
    """

    held_out_loss: float
    final_held_out_loss: float
    weights: float

    @classmethod
    def between(cls, arm: Arm, plain: Arm, first_weights: Tensor) -> Apart:
        """Compares `arm` to `plain`, both of which started from `first_weights`."""
        looks = zip(arm.held_out[1:], plain.held_out[1:], strict=True)
        differences = [ours - theirs for (_, ours), (_, theirs) in looks]
        moved = (plain.weights() - first_weights).norm()
        return cls(
            held_out_loss=statistics.fmean(d * d for d in differences) ** 0.5,
            final_held_out_loss=differences[-1],
            weights=((arm.weights() - plain.weights()).norm() / moved).item(),
        )


@dataclass(frozen=True)
class Figures:
    """All that is said about a race.

    Attributes:
        plain: seconds per step in plain float32.
        turbo: seconds per step under turbo.
        speed_up: plain by turbo, over the rounds: each compares what ran within the same few seconds.
        ratio_of_medians: the median step in plain float32 by the median step under turbo.
        drift: how far turbo came from plain float32.
        noise: how far plain float32 came from itself when fed other batches.
    """

    plain: Spread
    turbo: Spread
    speed_up: Spread
    ratio_of_medians: float
    drift: Apart
    noise: Apart

    @property
    def within_noise(self) -> bool:
        """Whether turbo changed the held-out loss by less than other batches do."""
        return self.drift.held_out_loss <= self.noise.held_out_loss

    @property
    def disturbed(self) -> bool:
        """Whether equal steps took such different times that the machine cannot have been quiet."""
        return any(time.high > QUIET * time.low for time in (self.plain, self.turbo))

    @classmethod
    def of(cls, race: Race) -> Figures:
        """The figures of a race that has been run."""
        plain, turbo = Spread.of(race.plain.seconds), Spread.of(race.turbo.seconds)
        ratios = [p / t for p, t in zip(race.plain.rounds, race.turbo.rounds, strict=True)]
        return cls(
            plain=plain,
            turbo=turbo,
            speed_up=Spread.of(ratios),
            ratio_of_medians=plain.median / turbo.median,
            drift=Apart.between(race.turbo, race.plain, race.first_weights),
            noise=Apart.between(race.other, race.plain, race.first_weights),
        )
