"""Two processes that train one model: where one overflows, both leave the step out and scale less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

from tests.scaling.distributed import KINDS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch was built without gloo")
def test_an_overflow_of_one_process_is_one_of_both(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.scaling.distributed", str(tmp_path / "meeting")]
    processes = [
        subprocess.Popen([*command, rank], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        told = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for process, (out, err) in zip(processes, told, strict=True):
        assert process.returncode == 0, err
        # Older gloo prints what it is connected to.
        assert [line for line in out.splitlines() if not line.startswith("[Gloo]")] == [
            f"{kind} {3 if kind == 'accumulated' else 2}" for kind in KINDS
        ], err
