"""Command lines run in this process, in a terminal of a known width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from torchturbo.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Run:
    """What a command line ends with, prints, and complains of, in 80 columns."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, list(arguments), prog_name="torchturbo")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run
