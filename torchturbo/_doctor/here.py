"""What a check of `torchturbo doctor` may look at, and the list that checks are declared in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torchturbo._doctor.surroundings import Surroundings
from torchturbo._report.data import Report
from torchturbo._report.findings import Checks
from torchturbo.hardware import Reason
from torchturbo.hardware._base import About


@dataclass(frozen=True, slots=True)
class Here:
    """All that a check may look at.

    Attributes:
        report: how torch stands, and the machine.
        around: what is around the process.
    """

    report: Report
    around: Surroundings

    def reasons(self, about: About) -> Iterator[str]:
        """What the machine says is absent, and is about this."""
        for reason in self.report.hardware.reasons:
            if isinstance(reason, Reason) and reason.about == about:
                yield str(reason)

    @property
    def cores(self) -> int:
        """The cores that this process can keep busy."""
        cores = self.report.hardware.cpu.cores
        return cores if self.around.quota is None else max(1, min(cores, math.ceil(self.around.quota)))


CHECKS: Checks[Here] = Checks()
"""Every check that needs more than a report; the files of this folder fill it."""
