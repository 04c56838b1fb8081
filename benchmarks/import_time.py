"""What `from torchturbo import turbo, accelerate` adds to a program that imports torch anyway.

Fresh processes run in turn, one with the import and one with an import that does nothing, round after round. In each,
the import after torch is timed, on the wall and in the processor (which a busy machine disturbs less). The length of
the whole processes is compared too, which also sees what an import puts off.

    python -m benchmarks.import_time [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import _record

CONTENDERS = {"torchturbo": "from torchturbo import turbo, accelerate", "nothing": "import this"}
LIMIT = 100.0
"""Milliseconds that the import may add."""

CHILD = """
import contextlib, io, time
import torch
began = time.perf_counter(), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    {line}
print(1000 * (time.perf_counter() - began[0]), 1000 * (time.process_time() - began[1]))
"""
SLOWEST = 8


def timed(line: str) -> dict[str, float]:
    """Milliseconds that one import took in a fresh process: on the wall, in the processor, and the whole process."""
    began = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", CHILD.format(line=line)], capture_output=True, text=True, check=True)
    wall, processor = map(float, run.stdout.split())
    return {"wall": wall, "processor": processor, "process": 1000 * (time.perf_counter() - began)}


def slowest_parts() -> list[tuple[float, str]]:
    """The modules that the import spends longest in, by themselves, with the milliseconds (while being watched)."""
    run = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import torch; print(flush=True); from torchturbo import turbo, accelerate",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    # Python reports a module once its import has ended: what belongs to torchturbo follows the line of torch itself.
    lines = [line.removeprefix("import time:").split("|") for line in run.stderr.splitlines() if "|" in line]
    after_torch = next(at for at, (*_, module) in enumerate(lines) if module.strip() == "torch") + 1
    return sorted(((int(own) / 1000, module.strip()) for own, _, module in lines[after_torch:]), reverse=True)[:SLOWEST]


def main() -> int:
    """Runs the rounds and prints what they say; 1 if the import adds more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    for line in CONTENDERS.values():
        timed(line)  # the disk's cache and the compiled files
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in CONTENDERS}
    for turn in range(arguments.rounds):
        for name in list(CONTENDERS)[:: 1 if turn % 2 else -1]:
            for kind, milliseconds in timed(CONTENDERS[name]).items():
                samples[name].setdefault(kind, []).append(milliseconds)

    parts = slowest_parts()
    console = Console()
    console.print(_table(samples))
    console.print("Longest by themselves: " + ", ".join(f"{module} {own:.1f}" for own, module in parts))
    if arguments.json:
        command = f"python -m benchmarks.import_time --rounds {arguments.rounds}"
        _record.write(arguments.json, "import_time", command, {"milliseconds": samples, "slowest": parts})
    return int(statistics.median(samples["torchturbo"]["wall"]) > LIMIT)


def _table(samples: dict[str, dict[str, list[float]]]) -> Table:
    table = Table("imported after torch", "timed", "median", "least", "greatest", title="milliseconds")
    for name, kinds in samples.items():
        for kind in ("wall", "processor"):
            table.add_row(name, kind, *(f"{of(kinds[kind]):.1f}" for of in (statistics.median, min, max)))
    longer = [a - b for a, b in zip(samples["torchturbo"]["process"], samples["nothing"]["process"], strict=True)]
    table.add_row("torchturbo - nothing", "process", *(f"{of(longer):.1f}" for of in (statistics.median, min, max)))
    return table


if __name__ == "__main__":
    sys.exit(main())
