"""An untouched loop gives, bit for bit, what the loop gives that was written with autocast and a gradient scaler."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.scaling import doubled, failing, inside, losses, ordinary, roots, stepping
from tests.scaling.loops import LOOPS, WAYS, Way, block_around_all, by_hand, differences, made_inside, untouched

assert all((doubled, failing, inside, losses, ordinary, roots, stepping)), "importing them fills LOOPS"

pytestmark = [
    # What torch says of differentiable gradients: they are cleared in the loop.
    pytest.mark.filterwarnings("ignore:Using backward:UserWarning"),
    # What is said of gradients that overflow before the first step, which may be taken outside.
    pytest.mark.filterwarnings("ignore:gradients overflowed in this block"),
    # And of a checkpoint inside a reentrant one, whose first forward is without gradients.
    pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning"),
]

expected = cache(lambda name: by_hand(LOOPS[name]))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", LOOPS)
def test_an_untouched_loop_is_the_one_written_by_hand(name: str, way: Way) -> None:
    assert not differences(untouched(LOOPS[name], way), expected(name))


@pytest.mark.parametrize("name", LOOPS)
def test_a_block_around_models_and_optimizers_too(name: str) -> None:
    assert not differences(made_inside(LOOPS[name]), expected(name))


@pytest.mark.parametrize("name", LOOPS)
def test_the_loops_can_tell(name: str) -> None:
    """They skip steps, and show whether small gradients were scaled."""
    right = expected(name)
    skipped, tracker = right[".skipped"], right[".growth tracker"]
    assert isinstance(skipped, int)
    assert skipped >= 2
    assert isinstance(tracker, int)
    unscaled = by_hand(LOOPS[name], enabled=False)
    assert any(part.startswith((".models", ".extra")) for part in differences(unscaled, right)), (
        "it trains the same without"
    )


@pytest.mark.parametrize("name", ["basic", "clip_by_norm", "gan", "moving_average"])
def test_they_learn(name: str) -> None:
    right = expected(name)
    weights = [value for part, value in right.items() if part.startswith(".models") and isinstance(value, torch.Tensor)]
    assert all(weight.isfinite().all() for weight in weights)
    before = by_hand(LOOPS[name], steps=1)
    assert any(part.startswith(".models") for part in differences(before, right))


@pytest.mark.parametrize("name", ["basic_adam", "attention", "accumulation_over_iterations", "step_in_backward"])
@pytest.mark.parametrize(
    "options",
    [
        {"init_scale": 2.0**40, "backoff_factor": 2.0**-4, "growth_interval": 4},
        {"init_scale": 1.0, "growth_factor": 16.0, "growth_interval": 1},
        {"growth_interval": 2000},
    ],
    ids=str,
)
def test_with_other_options(name: str, options: dict[str, float]) -> None:
    right = by_hand(LOOPS[name], 24, **options)
    assert not differences(untouched(LOOPS[name], block_around_all, 24, **options), right)
