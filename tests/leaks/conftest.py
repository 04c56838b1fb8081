"""Small projects of tests that are run within this process, and looked at by our own police around them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tests.laws.look import differences, look

_NUMBERS = itertools.count()


@dataclass
class Outcome:
    """What a run said.

    Attributes:
        code: the exit code.
        passed: the tests whose own code passed.
        failed: the tests whose own code failed.
        skipped: those that were skipped, or failed as they were expected to.
        errors: the text of errors in teardown and setup, by test.
        printed: what was printed.
        left: what our own police found changed afterwards.
    """

    code: int = -1
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    printed: str = ""
    left: str = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[2]
        if report.when == "call":
            (self.passed if report.passed else self.failed if report.failed else self.skipped).append(name)
        elif report.failed:
            self.errors[name] = report.longreprtext


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs pytest over files of tests, given by name and text."""
    with warnings.catch_warnings():
        torch.optim.SGD([torch.ones(1)])  # the first optimizer adds a filter of warnings, which is no test's doing
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

        def run(
            files: dict[str, str], *arguments: str, ini: str = "", capture: pytest.CaptureFixture[str] | None = None
        ) -> Outcome:
            folder = tmp_path_factory.mktemp("project")
            number = next(_NUMBERS)
            for name, text in files.items():
                Path(folder, name.format(number)).write_text(text)
            (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
            outcome = Outcome()
            always = [
                "-p",
                "torchturbo_pytest",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:faulthandler",
                "-p",
                "no:unraisableexception",
                "-p",
                "no:threadexception",
                "--strict-markers",
            ]
            before = look()
            outcome.code = int(
                pytest.main(
                    [
                        *always,
                        "--import-mode=importlib",
                        "-s",
                        "-q",
                        f"--rootdir={folder}",
                        "-c",
                        f"{folder}/pytest.ini",
                        *arguments,
                        str(folder),
                    ],
                    plugins=[outcome],
                )
            )
            if capture is not None:
                outcome.printed = capture.readouterr().out
            outcome.left = differences(before, look())
            return outcome

        yield run
