"""An environment for these tests: no variable that a report would speak of, whoever runs them."""

from __future__ import annotations

import pytest

from torchturbo._environment import VARIABLES


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
