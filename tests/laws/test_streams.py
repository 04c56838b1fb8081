"""The law of seeds, on torchturbo's blocks, on a plain one, and on mutants."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.mutants_of_streams import MUTANTS, Plain
from tests.laws.streams import Action, streams_hold
from tests.laws.violation import Violation

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 2**32 - 1)),
        st.tuples(st.sampled_from(("close", "fail")), st.integers(0, 5)),
        st.tuples(st.sampled_from(("draw", "seed")), st.integers(0, 3)),
    ),
    max_size=14,
)


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    found = Plain(0).read()
    yield
    Plain.opened.clear()
    Plain(0).write(found)


@settings(max_examples=80, deadline=None)
@given(ACTIONS)
def test_each_block_has_its_own_stream(actions: list[Action]) -> None:
    streams_hold(actions)


@settings(max_examples=30, deadline=None)
@given(ACTIONS)
def test_a_plain_block_holds_the_law_too(actions: list[Action]) -> None:
    streams_hold(actions, Plain)


def programs() -> Iterator[list[Action]]:
    """Always the same ones."""
    chance = Random(5)
    for _ in range(60):
        acts = chance.choices(("open", "close", "fail", "draw", "seed"), (4, 2, 1, 4, 1), k=chance.randint(2, 14))
        yield [("open", 1), *((act, chance.randint(0, 5)) for act in acts)]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: type[Plain]) -> None:
    found = Plain(0).read()

    def caught(program: list[Action]) -> bool:
        try:
            streams_hold(program, mutant)
        except Violation:
            return True
        finally:
            mutant.opened.clear()
            Plain(0).write(found)
        return False

    assert any(caught(program) for program in programs())


def test_a_block_that_starts_from_another_seed_is_caught() -> None:
    with pytest.raises(Violation, match=r"has .* next"):
        streams_hold([("open", 1), ("draw", 1)], lambda seed: Plain(seed + 1))
