"""Processes started for tests, each of which takes seconds to import torch: what can be asked of one start is.

``torchrun -m tests.distributed.started FOLDER ALONE AREA ...`` runs all cases of some areas, and each process writes
what it ended with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchturbo import distribute

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]
Cases = dict[str, Callable[[], Result]]
Found = dict[str, dict[str, Result]]
"""What one process ended with, by area and case."""


class Ended(NamedTuple):
    """What a start of processes has ended with, by rank; and where a run of one process ends."""

    ranks: list[Found]
    end: list[Tensor]


Start = Callable[[int], Ended]
"""Starts so many processes."""


def torchrun(*arguments: object, processes: int = 2, seconds: float = 400, **options: object) -> tuple[int, str]:
    """Has torchrun start processes on this machine.

    Args:
        *arguments: what to run: a script, or ``-m`` and a module, and its arguments.
        processes: how many.
        seconds: until it is ended.
        **options: of torchrun, by their names with underscores.

    Returns:
        How it ended, and what was written to stderr.
    """
    asked = {"nproc_per_node": processes, **options}
    how = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *how, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    return done.returncode, done.stderr


def found(processes: int, folder: Path, alone: Path, *areas: str) -> list[Found]:
    """What each of some processes ended with.

    Args:
        processes: how many.
        folder: for what they write.
        alone: where the checkpoints of one process are.
        *areas: the modules of this folder whose cases are run.
    """
    code, said = torchrun("-m", __name__, folder, alone, *areas, processes=processes)
    assert code == 0, said[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def main(folder: Path, alone: Path, *areas: str) -> None:
    """Runs all, and saves what this process ended with."""
    torch.set_num_threads(1)
    distribute(torch.nn.Linear(1, 1), "ddp")  # starts the group
    ended: Found = {}
    for area in areas:
        cases: Cases = import_module(f"tests.distributed.{area}").cases(folder, alone)
        ended[area] = {name: run() for name, run in cases.items()}
    torch.save(ended, folder / f"{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    # What a group of processes leaves running would wait for the others.
    sys.stdout.flush()
    os._exit(0)
