"""A diagnosis as frozen data, and the forms it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torchturbo._report.data import Report
from torchturbo._report.findings import Finding
from torchturbo._told import Told


@dataclass(frozen=True, slots=True)
class Diagnosis(Told):
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

    def to_dict(self) -> dict[str, Any]:
        """The versions, what was found, and the names of all that was looked for."""
        return {
            "versions": asdict(self.report.versions),
            "problems": [asdict(finding) for finding in self.problems],
            "advice": [asdict(finding) for finding in self.advice],
            "checks": list(self.checks),
        }
