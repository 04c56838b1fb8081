"""Law 1, for every value of every setting: as torch starts, from arbitrary precision, from arbitrary states."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.laws import start
from tests.laws.catalogue import Case, cases
from tests.laws.exclusive import exclusive
from tests.laws.faithful import faithful, scope_is_true
from tests.laws.pristine import in_fork, isolated

every_case = pytest.mark.parametrize("case", tuple(cases()), ids=repr)
of_precision = [case for case in cases() if any("precision" in cell.name for cell in case.cells)]


@every_case
def test_a_value_is_put_in_force_and_taken_out_without_a_trace(case: Case) -> None:
    isolated(lambda: faithful(case))


@every_case
def test_who_sees_a_value_is_declared(case: Case) -> None:
    isolated(lambda: scope_is_true(case))


@pytest.mark.parametrize("case", of_precision, ids=repr)
@settings(max_examples=60)
@given(before=start.precision)
def test_from_arbitrary_precision(case: Case, before: list[start.Step]) -> None:
    def check() -> None:
        start.play_precision(before)
        faithful(case)
        exclusive(case)

    isolated(check)


@settings(max_examples=12)
@given(before=start.anything)
def test_every_value_from_arbitrary_states_of_everything(before: list[tuple[str, int, tuple[object, ...]]]) -> None:
    def check() -> None:
        start.play_anything(before)
        for case in cases():
            faithful(case)
            exclusive(case)
            scope_is_true(case)

    in_fork(check)
