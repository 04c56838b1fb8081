"""What is wrong on this machine and in this environment, each with its fix: a list of checks, and what they find."""

from __future__ import annotations

from torchturbo._doctor import asked, gpus, system  # noqa: F401 - they declare their checks
from torchturbo._doctor.data import Diagnosis
from torchturbo._doctor.here import CHECKS, Here
from torchturbo._doctor.surroundings import look_around
from torchturbo._report import advice, gather

__all__ = ["Diagnosis", "examine"]


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
