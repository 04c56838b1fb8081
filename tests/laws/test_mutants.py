"""Each mutant is caught by the laws that it names: so laws can fail, and what is no mutant passes the same trial."""

from __future__ import annotations

import pytest

from tests.laws import mutants_of_float32
from tests.laws.catalogue import cases
from tests.laws.exclusive import exclusive
from tests.laws.faithful import faithful, scope_is_true
from tests.laws.mutants import MUTANTS, Mutant
from tests.laws.mutants_of_cells import starts
from tests.laws.pristine import in_fork
from tests.laws.violation import Violation


@pytest.mark.parametrize("mutant", MUTANTS, ids=repr)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    with pytest.raises(Violation):
        in_fork(mutant.trial)


def test_cells_and_settings_are_no_mutants() -> None:
    def trial() -> None:
        for _ in starts():
            for case in cases():
                faithful(case)
                scope_is_true(case)
                exclusive(case)

    in_fork(trial)


def test_float32_precision_is_no_mutant() -> None:
    in_fork(lambda: mutants_of_float32.trial({}))
