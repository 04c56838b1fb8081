"""What is wrong on this machine and in this environment, each with its fix: a list of checks, and what they find."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torchturbo._doctor import asked, gpus, system  # noqa: F401 - they declare their checks
from torchturbo._doctor.here import CHECKS, Here
from torchturbo._doctor.surroundings import look_around
from torchturbo._report import advice, gather
from torchturbo._report.data import Report
from torchturbo._report.findings import Finding

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Diagnosis", "examine"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        report: how torch stands, and the machine.
        findings: problems before advice, and each in the order of the checks.
        checks: the names of all that was looked for.
    """

    report: Report
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What does not work, or not as it should."""
        return tuple(finding for finding in self.findings if finding.severity == "problem")

    @property
    def advice(self) -> tuple[Finding, ...]:
        """What more is to be had."""
        return tuple(finding for finding in self.findings if finding.severity == "advice")

    def to_json(self) -> str:
        """The diagnosis as JSON."""
        told: dict[str, Any] = {
            "versions": asdict(self.report.versions),
            "problems": [asdict(finding) for finding in self.problems],
            "advice": [asdict(finding) for finding in self.advice],
            "checks": list(self.checks),
        }
        return json.dumps(told, indent=2)

    def __rich__(self) -> RenderableType:
        from torchturbo._doctor.text import Sheet

        return Sheet(self)


def examine(here: Here | None = None) -> Diagnosis:
    """Runs every check: those behind a report's advice, and those that look further.

    Args:
        here: the facts; None for those of this process, on this machine, now.
    """
    if here is None:
        here = Here(gather(), look_around())
    found = (*CHECKS.found(here), *advice.CHECKS.found(here.report))
    return Diagnosis(
        here.report,
        tuple(sorted(found, key=lambda finding: finding.severity != "problem")),
        tuple(check.name for check in (*CHECKS, *advice.CHECKS)),
    )
