"""What is in force, who asked for it, and what has no effect here and why: gathered, and printed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

from torchturbo import _environment, hardware
from torchturbo._active import Active
from torchturbo._environment import Circumstances
from torchturbo._report.advice import advise
from torchturbo._report.data import Report, Versions
from torchturbo._report.engine import Engine, still
from torchturbo._report.precision import contradictions
from torchturbo._report.rows import read_rows
from torchturbo._told import show
from torchturbo.regions.autocast import as_in_forward
from torchturbo.regions.compiling import compilations
from torchturbo.settings._base import TORCH

__all__ = ["Report", "gather", "report"]


def report(active: Active | None = None) -> Report:
    """Prints what is in force, who asked for it, and what has no effect here and why; returns it as data.

    In a notebook nothing is printed: the cell shows the `Report` that is returned, and inside a block
    ``display(torchturbo.report())`` does. Of several processes that train together the one of rank 0 prints.

    Args:
        active: tell it of this block: "before" is then what the block found, else what is beneath all blocks.
    """
    told = gather(active)
    if not _in_notebook() and hardware.place().rank == 0:
        show(told)
    return told


def gather(active: Active | None = None) -> Report:
    """What `report` says, without printing it. Changes nothing and starts nothing, CUDA least of all."""
    machine = hardware.detect()
    with still(), as_in_forward():
        engine = Engine.now(active)
        raising = contradictions()
        table = read_rows(engine, machine, raising)
    environment = _environment.found(
        Circumstances(
            environ=os.environ,
            now={row.name: row.now for row in table},
            before={row.name: row.before for row in table},
            hardware=machine,
            cuda_started=hardware.cuda.has_started(),
            torch=(TORCH[0], TORCH[1]),
        )
    )
    facts = Report(
        rows=table,
        blocks=engine.blocks,
        about=engine.about,
        hardware=machine,
        readings=hardware.readings(),
        versions=Versions.of(machine.build),
        environment=environment,
        contradictions=raising,
        compiled=compilations(),
        advice=(),
    )
    return replace(facts, advice=advise(facts))


def _in_notebook() -> bool:
    """Whether a notebook runs this, which shows what a cell returns: IPython with a kernel, not a terminal's."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
