"""What `pytest --torchturbo-leaks` adds to a test, and what the plugin adds to a run that does not ask for it.

Fresh processes run the same file of empty tests in turn: without the plugin, with it, and with the flag. In each, the
tests are timed without the start and the imports, and whole processes for a run that does not ask for it; all in the
time of the processor, which a busy machine disturbs less.

    python -m benchmarks.leaks [--tests 500] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import _record
from benchmarks._turns import middle

ROOT = Path(__file__).parents[1]
LIMIT = 2000.0
"""Microseconds that a test may take longer."""

CONTENDERS = {
    "without the plugin": (),
    "with the plugin": ("-p", "torchturbo_pytest"),
    "--torchturbo-leaks": ("-p", "torchturbo_pytest", "--torchturbo-leaks"),
}
TESTS = "import torch\nimport pytest\n\n@pytest.mark.parametrize('n', range({}))\ndef test(n): pass\n"
TIMED = """
import pytest, time

@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    began = time.process_time()
    result = yield
    print("took", time.process_time() - began)
    return result
"""
EMPTY = "def test(): pass\n"

Samples = dict[str, list[float]]


def timed(folder: Path, file: str, *arguments: str) -> tuple[float, float]:
    """Seconds of the processor that the tests of a file took, and the whole process."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments, file]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    began = os.times()
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    ended = os.times()
    process = ended.children_user + ended.children_system - began.children_user - began.children_system
    return float(run.stdout.partition("took ")[2].split()[0]), process


def sampled(folder: Path, tests: int, rounds: int) -> tuple[Samples, Samples]:
    """Microseconds of a test by contender, and milliseconds of a process with one empty test and no torch."""
    (folder / "conftest.py").write_text(TIMED)
    (folder / "test_many.py").write_text(TESTS.format(tests))
    (folder / "test_one.py").write_text(EMPTY)
    each: Samples = {name: [] for name in CONTENDERS}
    whole: Samples = {name: [] for name in list(CONTENDERS)[:2]}
    for turn in range(-1, rounds):
        for name in list(CONTENDERS)[:: 1 if turn % 2 else -1]:
            seconds = timed(folder, "test_many.py", *CONTENDERS[name])[0]
            process = timed(folder, "test_one.py", *CONTENDERS[name])[1] if name in whole else 0.0
            if turn >= 0:  # the first one fills the disk's cache
                each[name].append(1e6 * seconds / tests)
                if name in whole:
                    whole[name].append(1e3 * process)
    return each, whole


def main() -> int:
    """Runs the rounds and prints what they say; 1 if a test takes longer than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        each, whole = sampled(Path(folder), arguments.tests, arguments.rounds)
    plain, loaded, watching = CONTENDERS
    extra = [ours - theirs for ours, theirs in zip(each[watching], each[plain], strict=True)]
    starts = [ours - theirs for ours, theirs in zip(whole[loaded], whole[plain], strict=True)]
    table = Table("empty tests", "microseconds each, median", "more than without")
    for name, samples in each.items():
        more = statistics.median(a - b for a, b in zip(samples, each[plain], strict=True))
        table.add_row(name, f"{statistics.median(samples):.0f}", f"{more:.0f}")
    console = Console()
    console.print(table)
    console.print(f"a process with one empty test takes {statistics.median(starts):.1f} ms more with the plugin")
    if arguments.json:
        command = f"python -m benchmarks.leaks --tests {arguments.tests} --rounds {arguments.rounds}"
        content = {
            "load_average_before_and_after": [before, os.getloadavg()],
            "microseconds_per_test": each,
            "extra_us": middle(extra),
            "milliseconds_per_process": whole,
            "extra_ms_of_a_process_without_the_flag": middle(starts),
        }
        _record.write(arguments.json, "leaks", command, content)
    return int(statistics.median(extra) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
