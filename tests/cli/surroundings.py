"""What `torchturbo doctor` looks at, made to measure: a healthy machine, with any fact replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.report.facts import facts
from torchturbo._doctor.here import Here
from torchturbo._doctor.surroundings import Surroundings
from torchturbo._sources import NOTHING
from torchturbo.hardware import Hardware
from torchturbo.testing import MACHINES

HEALTHY = Surroundings(
    environ={},
    quota=None,
    shared_memory=8 * 1024**3,
    cxx="g++",
    has_cxx=True,
    has_cc=True,
    has_headers=True,
    installed={"nvidia-ml-py": "12.570.86", "triton": "3.4.0"},
    boards=0,
    cuda_started=False,
    sources=NOTHING,
    mistakes=(),
)


def here(
    machine: str | Hardware = "cpu",
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    around: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Here:
    """The facts of a healthy machine, on which torch uses all cores.

    Args:
        machine: what to pretend.
        rows: by option, the attributes of its row that differ.
        around: what else differs around the process.
        **changes: other parts of the report.
    """
    cores = (MACHINES[machine] if isinstance(machine, str) else machine).cpu.cores
    report = facts(machine, {"num_threads": {"now": cores}, **(rows or {})}, **{"environment": (), **changes})
    return Here(report, replace(HEALTHY, **(around or {})))
