"""Random histories, random blocks in four threads, and nothing different afterwards: a small run of `tests.matrix`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CASES = 100


@pytest.mark.matrix
def test_nothing_is_different_after_random_blocks_from_random_states(tmp_path: Path) -> None:
    # A process of its own: the children need a parent whose torch nobody has touched.
    found = tmp_path / "found.json"
    run = [sys.executable, "-m", "tests.matrix", "--cases", str(CASES), "--seed", "90001", "--json", str(found)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.exists(), done.stdout + done.stderr
    summary = json.loads(found.read_text())
    assert summary["failures"] == [], done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary["cases"] == CASES
    # Mostly blocks that stand, or the run would show nothing.
    assert summary["blocks_entered"] > 5 * summary["entries_refused"] > 0
