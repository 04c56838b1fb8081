"""Law 2, for every value of every setting."""

from __future__ import annotations

import pytest

from tests.laws.catalogue import Case, cases
from tests.laws.exclusive import exclusive
from tests.laws.pristine import isolated


@pytest.mark.parametrize("case", tuple(cases()), ids=repr)
def test_a_value_changes_no_other_setting(case: Case) -> None:
    isolated(lambda: exclusive(case))
