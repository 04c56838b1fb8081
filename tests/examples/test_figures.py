"""Figures come from the samples as they say, and a bad run is called one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from examples.gpt.model import SIZES
from examples.side_by_side import race, table
from examples.side_by_side.figures import Figures, Spread
from examples.side_by_side.race import Race


def made(turbo_ends: float = 2.51, other_ends: float = 2.7) -> Race:
    """A race of made-up samples: turbo takes half the time, and ends a little apart."""
    racing = race.line_up(SIZES["tiny"], seed=0)
    for arm, seconds, end in (
        (racing.plain, 0.2, 2.5),
        (racing.turbo, 0.1, turbo_ends),
        (racing.other, 0.2, other_ends),
    ):
        arm.warm_up.extend([9.0] * 3)
        arm.seconds.extend([seconds, seconds * 1.05, seconds * 0.95])
        arm.rounds.append(3 * seconds)
        arm.losses.extend([5.5, 4.0, 3.5, 3.0, 2.8, 2.6])
        arm.held_out.extend([(0, 5.5), (3, 3.5), (6, end)])
    return racing


def move(arm: race.Arm, by: float) -> None:
    with torch.no_grad():
        for parameter in arm.model.parameters():
            parameter += by


def test_a_spread_is_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7.0]) == Spread(7, 7, 7)


def test_the_speed_up_compares_rounds_and_leaves_out_the_warm_up() -> None:
    figures = Figures.of(made())
    assert figures.speed_up == Spread.of([pytest.approx(2)])
    assert figures.ratio_of_medians == pytest.approx(2)
    assert figures.plain.median == 0.2


def test_a_slow_spell_of_the_machine_does_not_move_the_speed_up() -> None:
    racing = made()
    racing.plain.rounds[:] = [0.6, 6.0, 0.6]
    racing.turbo.rounds[:] = [0.3, 3.0, 0.3]
    assert Figures.of(racing).speed_up == Spread(2, 2, 2)


def test_drift_and_noise_are_measured_alike() -> None:
    racing = made(turbo_ends=2.49, other_ends=2.9)
    move(racing.plain, 0.10)
    move(racing.turbo, 0.11)
    move(racing.other, -0.10)
    figures = Figures.of(racing)
    assert figures.drift.final_held_out_loss == pytest.approx(-0.01)
    assert figures.drift.held_out_loss == pytest.approx((0.01**2 / 2) ** 0.5)
    assert figures.drift.weights == pytest.approx(0.1, rel=1e-3)
    assert figures.noise.final_held_out_loss == pytest.approx(0.4)
    assert figures.noise.weights == pytest.approx(2, rel=1e-3)
    assert figures.within_noise


@pytest.mark.parametrize(("turbo_ends", "word"), [(2.51, "less than"), (2.8, "MORE than")])
def test_the_verdict_can_go_either_way(turbo_ends: float, word: str) -> None:
    racing = made(turbo_ends)
    move(racing.plain, 0.1)
    figures = Figures.of(racing)
    assert figures.within_noise is (word == "less than")
    assert f": {word} the" in table.sentences(racing, figures)[1]


def test_steps_that_differ_widely_are_not_passed_over() -> None:
    racing = made()
    move(racing.plain, 0.1)
    quiet = Figures.of(racing)
    noisy = replace(quiet, turbo=Spread(median=0.1, low=0.08, high=0.12))
    assert not quiet.disturbed
    assert noisy.disturbed
    assert len(table.sentences(racing, quiet)) == 2
    assert "something else was using this machine" in table.sentences(racing, noisy)[2]
