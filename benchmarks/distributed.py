"""What several processes cost a step on one CPU: the time, the share of communication, and the scaling efficiency.

    python -m benchmarks.distributed --json benchmarks/records/$(date +%F)-cpu-distributed.json

Each process has one thread and a batch of its own of the same size (weak scaling), and they talk by gloo over the
loopback. Where there are more processes than cores they share these, and what is measured is that and no network.

``not reduced`` is the step of the same number of processes without any reduction, ``fsdp of one`` that of FSDP2 where
each process is a group of its own; the share of communication is what a step takes more than that. It is what is not
hidden behind computing; a second share tells how much of a step reductions are under way. The efficiency is the time of
one process by that of as many as there are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _record

HERE = "benchmarks._ranks"
BASES = {"ddp": "not reduced", "ddp, sent in bf16": "not reduced", "fsdp": "fsdp of one"}
"""What a way would take if nobody had to be waited for."""


def one(processes: int, size: str, rounds: int) -> dict[str, Any]:
    """What that number of processes takes.

    Args:
        processes: how many.
        size: of the model.
        rounds: how often each way has its turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*start, "-m", HERE, str(path), size, str(rounds)], check=True, env=environment)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def shares(alone: dict[str, Any], several: dict[str, Any], cores: int) -> dict[str, Any]:
    """What follows from the times of several processes.

    Args:
        alone: what one process has found.
        several: what several have.
        cores: how many there are.
    """
    median = several["median"]
    reduced = {name: its for name, its in median.items() if name not in BASES.values()}
    step, under_way = several["seconds of a step"]["ddp"], several["seconds that reductions of ddp are under way"]
    return {
        "ranks": several["ranks"],
        "more processes than cores": several["ranks"] > cores,
        "efficiency": {name: alone["median"]["alone"] / its for name, its in median.items()},
        "share of communication": {name: 1 - median[BASES[name]] / its for name, its in reduced.items()},
        "share that reductions of ddp are under way": statistics.median(
            its / whole for its, whole in zip(under_way, step, strict=True)
        ),
    }


def main() -> None:
    """Runs it, and writes a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="numbers of processes beside one")
    parser.add_argument("--size", default="small", help="of the GPT: tiny, small or medium")
    parser.add_argument("--rounds", type=int, default=60, help="how often each way has its turn")
    parser.add_argument("--json", type=Path, default=None, help="where to write the record")
    given = parser.parse_args()
    runs = {1: one(1, given.size, given.rounds)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    summary = []
    print(f"1: {runs[1]['median']['alone'] * 1e3:.1f} ms")
    for ranks in given.ranks:
        runs[ranks] = one(ranks, given.size, given.rounds)
        found = shares(runs[1], runs[ranks], cores)
        summary.append(found)
        note = " (more processes than cores)" if found["more processes than cores"] else ""
        print(f"{ranks}{note}:")
        for name, seconds in runs[ranks]["median"].items():
            share = found["share of communication"].get(name)
            told = "" if share is None else f", {share:.0%} of it communication that is not hidden"
            print(f"  {name}: {seconds * 1e3:.1f} ms, efficiency {found['efficiency'][name]:.0%}{told}")
    if given.json is not None:
        numbers = " ".join(map(str, given.ranks))
        command = f"python -m benchmarks.distributed --ranks {numbers} --size {given.size} --rounds {given.rounds}"
        content = {"size": given.size, "summary": summary, "runs": list(runs.values())}
        _record.write(given.json, "distributed", command, content)


if __name__ == "__main__":
    main()
