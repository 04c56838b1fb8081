"""A record of a benchmark: where it ran, how it was called, and every sample."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import torchturbo
from torchturbo import hardware


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    here = hardware.detect()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "torchturbo": torchturbo.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": here.cpu.name,
        "cores": here.cpu.cores,
        "threads": torch.get_num_threads(),
        "gpus": [gpu.name for gpu in here.gpus],
    }


def write(path: Path, name: str, command: str, content: dict[str, Any]) -> None:
    """Writes a record as JSON.

    Args:
        path: where to; its folder is made.
        name: of the benchmark.
        command: that runs it again.
        content: its samples and what follows from them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"benchmark": name, "command": command, "environment": environment(), **content}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"record: {path}", file=sys.stderr)
