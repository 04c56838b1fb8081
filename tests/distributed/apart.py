"""A process of two whose machines and environments differ, and what it decides."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

from torchturbo import _ranks, hardware, report, turbo
from torchturbo.hardware import cpu

MACHINE = cpu.ask()


def lesser() -> hardware.Cpu:
    """A processor that computes bf16 on rank 0 alone."""
    return dataclasses.replace(MACHINE, bf16=dist.get_rank() == 0)


def main(kind: str) -> None:
    """Enters a block, on every rank or on one."""
    cpu.ask = lesser
    _ranks.AT_ENTRY = timedelta(seconds=60 if kind == "together" else 2)
    dist.init_process_group("gloo")
    told = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind == "together" or dist.get_rank() == 0:
            with turbo("fast", seed=7) as active:
                told = {
                    "autocast": torch.is_autocast_enabled("cpu"),
                    "threads": torch.get_num_threads(),
                    "seed": torch.initial_seed(),
                    "report": active.report().to_text(200) if dist.get_rank() else report(active).to_text(200),
                }
            with turbo("fast"):
                pass
    told["warnings"] = [f"{each.category.__name__}: {each.message}" for each in caught]
    print("told", json.dumps(told), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
