"""Two processes whose machines and environments differ, and what they decide."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist

from tests.distributed.started import Cases, Result
from torchturbo import _ranks, _sources, hardware, report, turbo
from torchturbo.hardware import cpu

MACHINE = cpu.ask()


@contextmanager
def strangers(meet_at: Path, seconds: float) -> Iterator[None]:
    """A block in which the processes have agreed on nothing yet: bf16 is on rank 0 alone, and only rank 1 is asked.

    Args:
        meet_at: the file of a group of their own.
        seconds: how long one waits for the others.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.FileStore(str(meet_at), ranks), rank=rank, world_size=ranks)
    with (
        mock.patch.object(cpu, "ask", return_value=replace(MACHINE, bf16=rank == 0)),
        mock.patch.multiple(hardware, _real=None, _real_is_final=False, known=None),
        mock.patch.multiple(_ranks, _settled=False, AT_ENTRY=timedelta(seconds=seconds)),
        mock.patch.dict(os.environ, {"TORCHTURBO_NUM_THREADS": "3"} if rank else {}),
        _sources.settled(None),
    ):
        yield


def entered(meet_at: Path, *, seconds: float, together: bool) -> Result:
    """Enters a block, on every rank or on one."""
    told: Result = {}
    with strangers(meet_at, seconds), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if together or dist.get_rank() == 0:
            with turbo("fast", seed=7) as active:
                told = {
                    "autocast": torch.is_autocast_enabled("cpu"),
                    "threads": torch.get_num_threads(),
                    "seed": torch.initial_seed(),
                    "report": active.report().to_text(200) if dist.get_rank() else report(active).to_text(200),
                }
            with turbo("fast"):
                pass
        dist.barrier()
    return told | {"warnings": [f"{each.category.__name__}: {each.message}" for each in caught]}


def cases(folder: Path, alone: Path) -> Cases:
    """Both, by name."""
    return {
        "together": partial(entered, folder / "together", seconds=60, together=True),
        "alone": partial(entered, folder / "alone", seconds=2, together=False),
    }
