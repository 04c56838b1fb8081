"""Two hundred loops drawn at random: untouched, each gives the bits that it gives by hand."""

from __future__ import annotations

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from tests.scaling.loops import WAYS, Way, by_hand, differences, untouched
from tests.scaling.programs import PROGRAMS, Program, recipe_of

pytestmark = [
    # Where a loop diverges, the block says that nothing helps. That is right, and no business of its bits.
    pytest.mark.filterwarnings("ignore::torchturbo.errors.ScalingWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning"),
]


# A program that fails is short as it is drawn; making it shorter would take minutes.
@settings(max_examples=120, phases=[Phase.generate])
@given(program=PROGRAMS, way=st.sampled_from(WAYS))
def test_a_random_loop_is_the_one_written_by_hand(program: Program, way: Way) -> None:
    expected = by_hand(recipe_of(program), program.steps, cache=False, **program.options)
    event(f"skipped {expected['.skipped']}")
    found = untouched(recipe_of(program), way, program.steps, **program.options)
    assert not differences(found, expected)
