"""Loops that clear, clip, step and end in every order: against the loop by hand, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.accumulating.loops import AUTOCASTS, OPTIMIZERS, Autocast, Case, check

ORDERS = ("before forward", "before backward", "after step")
CLEARS = ("to none", "in place", "model", "by hand")


@pytest.mark.parametrize("autocast", AUTOCASTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("clear", CLEARS)
def test_gradients_are_cleared_anywhere_and_anyhow(autocast: Autocast, order: str, clear: str) -> None:
    for every, clip in ((1, "norm"), (2, "norm"), (3, "value"), (4, None), (5, "norm")):
        check(Case(every=every, autocast=autocast, order=order, clear=clear, clip=clip))


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5])
def test_windows_end_anywhere(every: int) -> None:
    for micro in range(every, 2 * every + 2):
        for clip in (None, "norm", "value"):
            check(Case(every=every, micro=micro, clip=clip, order="after step"))


@pytest.mark.parametrize("autocast", AUTOCASTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_keep_the_state_that_they_have_by_hand(autocast: Autocast, optimizer: str) -> None:
    check(Case(every=3, micro=8, autocast=autocast, optimizer=optimizer, clip="norm"))
    check(Case(every=3, micro=8, autocast=autocast, optimizer=optimizer, two=True, backwards=2))


@pytest.mark.parametrize("backwards", [2, 3])
@pytest.mark.parametrize("clear", CLEARS)
def test_several_backwards_are_one_micro_batch(backwards: int, clear: str) -> None:
    check(Case(every=2, backwards=backwards, clear=clear, clip="norm"))
    check(Case(every=2, backwards=backwards, clear=clear, clip="value", autocast="fp16", two=True))


@pytest.mark.parametrize("unused", [{0}, {1}, {7}, {4, 7}, {6, 7}, {0, 1, 2}, set(range(8))])
@pytest.mark.parametrize("clear", ["to none", "in place"])
def test_parameters_that_some_micro_batches_do_not_use(unused: set[int], clear: str) -> None:
    for autocast in (None, "fp16"):
        for order in ORDERS:
            for clip in ("norm", "value"):
                check(Case(3, 8, autocast, order, clear, clip, unused=frozenset(unused), two=clip == "value"))


@pytest.mark.parametrize("overflow", [{0}, {1}, {4}, {7}, {3, 6}, {0, 1, 2, 3, 4, 5, 6, 7}])
@pytest.mark.parametrize("clip", [None, "norm", "value"])
def test_one_micro_batch_that_overflows_costs_its_window(overflow: set[int], clip: str | None) -> None:
    for middle in ("plain", "sparse", "checkpoint_reentrant"):
        for two in (False, True):
            case = Case(3, 8, "fp16", clip=clip, overflow=frozenset(overflow), middle=middle, two=two)
            check(case)


def test_zeros_of_which_clipping_makes_nan_are_no_gradients() -> None:
    """An infinite norm times the zeros of parameters that were cleared in place and not used."""
    case = Case(2, 3, "fp16", clear="in place", clip="norm", unused=frozenset({0, 2}), overflow=frozenset({0, 1, 2}))
    check(case)
    check(replace(case, two=True))
