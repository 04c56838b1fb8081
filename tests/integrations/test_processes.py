"""Each library's own DistributedDataParallel in two processes, with blocks: it ends where the library alone does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.ranks import ARGUMENTS, here

ROOT = Path(__file__).parents[2]
Found = list[dict[str, dict[str, dict[str, Any]]]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each process ended with, by library."""
    pytest.importorskip("sklearn")
    if not here():
        pytest.skip("none of the libraries is installed")
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.integrations.ranks", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.parametrize("library", ARGUMENTS)
def test_two_processes_end_as_with_the_library_alone(found: Found, library: str) -> None:
    if library not in found[0]:
        pytest.skip(f"{library} is not installed")
    first, second = (each[library] for each in found)
    assert first["alone"]["losses"]
    for how in ("block", "plain"):
        for rank in (first, second):
            assert (rank[how]["losses"], rank[how]["bits"]) == (rank["alone"]["losses"], rank["alone"]["bits"]), how
            assert rank[how]["left"]["autocast"].startswith("left to ")
        assert first[how]["bits"] == second[how]["bits"]
    if library != "transformers":  # which logs the mean of all
        assert first["alone"]["losses"] != second["alone"]["losses"]
