"""Runs the tests on all cores: a folder of tests, or several small ones, is a process; as many run as there are cores.

    python -m tools.suite [arguments for pytest]

Tests here fork, open threads and look at all of torch's state, so what shares one process has to be whole folders; a
pool that deals out single tests (pytest-xdist) keeps threads of its own in each worker, over which no test may fork.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTHING_COLLECTED = 5
TOGETHER = 100_000
"""Bytes of tests that share a process: with less, starting takes as long as some folders; with more, one core waits."""
_QUIETLY = ("-q", "-p", "no:cacheprovider", "--cov", "--cov-report=", "--cov-fail-under=0")
_COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)")


@dataclass(frozen=True, slots=True)
class Part:
    """What one process runs.

    Attributes:
        name: for people.
        paths: what pytest is told to run.
    """

    name: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of tests: what takes longest should begin first, and this is as good a guess as any."""
        files = (file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*.py")))
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of them ended.

    Attributes:
        part: which.
        code: pytest's exit code.
        output: all that it said.
        seconds: how long it took.
    """

    part: Part
    code: int
    output: str
    seconds: float

    @property
    def counted(self) -> Counter[str]:
        """How many tests passed, failed and so on, by pytest's words."""
        last = self.output.rstrip().rpartition("\n")[2]
        return Counter({what: int(number) for number, what in _COUNTED.findall(last)})


def parts(tests: Path) -> list[Part]:
    """Folders with tests, small ones together, and the files beside the folders; the biggest first."""
    folders = [path for path in sorted(tests.iterdir()) if path.is_dir() and any(path.glob("test_*.py"))]
    alone = [Part(path.name, (path,)) for path in folders]
    alone.append(Part("the files beside them", tuple(sorted(tests.glob("test_*.py")))))
    found: list[Part] = []
    for part in sorted(alone, key=lambda part: -part.size):
        at = next((at for at, each in enumerate(found) if each.size + part.size <= TOGETHER), None)
        if at is None:
            found.append(part)
        else:
            found[at] = Part(f"{found[at].name}, {part.name}", found[at].paths + part.paths)
    return sorted(found, key=lambda part: -part.size)


def run(part: Part, arguments: Sequence[str]) -> Outcome:
    """Runs one in a process of its own.

    Args:
        part: which.
        arguments: more for pytest.
    """
    begin = time.monotonic()
    coverage = ROOT / f".coverage.{part.name.replace(', ', '.').replace(' ', '-')}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *_QUIETLY, *arguments, *map(str, part.paths)],
        cwd=ROOT,
        # As many processes run as there are cores, on which idle threads of OpenMP would spin.
        env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **os.environ, "COVERAGE_FILE": str(coverage)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return Outcome(part, done.returncode, done.stdout, time.monotonic() - begin)


def run_all(waiting: list[Part], arguments: Sequence[str], processes: int) -> list[Outcome]:
    """Runs them, several at a time, and says how each ended when it does.

    Args:
        waiting: what to run, in this order.
        arguments: more for pytest.
        processes: how many at a time.
    """
    queue, turn = iter(waiting), threading.Lock()
    ended: list[Outcome] = []

    def work() -> None:
        while True:
            with turn:
                part = next(queue, None)
            if part is None:
                return
            outcome = run(part, arguments)
            with turn:
                ended.append(outcome)
                _say(outcome, f"{len(ended)}/{len(waiting)}")

    threads = [threading.Thread(target=work) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def _say(outcome: Outcome, of: str) -> None:
    if outcome.code not in (0, NOTHING_COLLECTED):
        print(outcome.output)
    print(f"{of:>6}  {outcome.seconds:5.0f} s  {outcome.part.name}: {_listed(outcome.counted)}", flush=True)


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing"


def without_their_libraries() -> list[str]:
    """The files of the package that no test can run here: each is about a library, which is not installed."""
    about = {path.relative_to(ROOT): path.stem for path in (ROOT / "torchturbo" / "integrations").glob("[!_]*.py")}
    about[Path("torchturbo/_float8.py")] = "torchao"
    return sorted(path.as_posix() for path, library in about.items() if importlib.util.find_spec(library) is None)


def main(arguments: Sequence[str]) -> int:
    """Runs all, then says what of the package they have run.

    Args:
        arguments: more for pytest.
    """
    begin = time.monotonic()
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ended = run_all(parts(ROOT / "tests"), arguments, max(2, cores))
    failed = [outcome.part.name for outcome in ended if outcome.code not in (0, NOTHING_COLLECTED)]
    total: Counter[str] = sum((outcome.counted for outcome in ended), Counter())
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, check=False)
    # Of a selection nobody asks how much of the package it runs.
    selected = any(word in ("-k", "-x") for word in arguments)
    left_out = [f"--omit={','.join(files)}"] if (files := without_their_libraries()) else []
    enough = selected or subprocess.run([*coverage, "report", *left_out], cwd=ROOT, check=False).returncode == 0
    print(f"\n{_listed(total)} in {time.monotonic() - begin:.0f} s on {cores} cores", end="")
    print(f"; FAILED: {', '.join(failed)}" if failed else "")
    return 0 if enough and not failed and total["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
