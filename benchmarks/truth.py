"""Whether `benchmark` tells the truth: an option that does nothing, and one that makes a real step a tenth faster.

    python -m benchmarks.truth                # 100 runs of each, some minutes on a quiet machine
    python -m benchmarks.truth --runs 5       # a look

The step trains a small net on a CPU for eleven updates. Both options are planted: ``math_sdp=True`` is asked of a net
that has no attention, so that it changes nothing; and ``flash_sdp=False`` is what the step itself looks at, to leave
out one of its updates, so that it is faster by 1.10.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _record
from torchturbo import benchmark

UPDATES = 11
TRUTH = {"no-op": "no difference", "a tenth faster": "faster"}


def step_of(width: int, rows: int) -> Callable[[], torch.Tensor]:
    """A step of training, which is faster by a tenth where ``flash_sdp`` is off.

    Args:
        width: of its layers.
        rows: of each batch.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = torch.randn(rows, width)

    def step() -> torch.Tensor:
        flash: bool = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        loss = torch.zeros(())
        for _ in range(UPDATES if flash else UPDATES - 1):
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
        return loss.detach()

    return step


def one_run(planted: str, step: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """What one benchmark says of a planted option.

    Args:
        planted: which.
        step: the step.
        seconds: how long its rounds may take.
    """
    began = time.perf_counter()
    found = (
        benchmark(step, budget=seconds, math_sdp=True)
        if planted == "no-op"
        else benchmark(step, budget=seconds, flash_sdp=False)
    )
    row = found.rows[-1]
    assert row.speedup is not None
    return {
        "verdict": row.verdict,
        "speedup": [row.speedup.value, row.speedup.low, row.speedup.high],
        "rounds": found.rounds,
        "steps": found.steps,
        "took": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    """Runs it, and writes a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="benchmark runs of each option")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of rounds in each run")
    parser.add_argument("--width", type=int, default=64, help="of the net's layers")
    parser.add_argument("--rows", type=int, default=32, help="rows of each batch")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, which is enough for so small a net")
    parser.add_argument("--json", type=Path, default=None, help="where to write the record")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    step = step_of(given.width, given.rows)
    found: dict[str, list[dict[str, Any]]] = {planted: [] for planted in TRUTH}
    for number in range(given.runs):
        # In turn, so that what else the machine does falls on both.
        for planted, runs in found.items():
            runs.append(one_run(planted, step, given.seconds))
            right = sum(run["verdict"] == TRUTH[planted] for run in runs)
            print(f"{planted}: {right} of {number + 1} say {TRUTH[planted]!r}; the last: {runs[-1]}", flush=True)
    summary = {}
    for planted, runs in found.items():
        summary[planted] = {
            "truth": TRUTH[planted],
            "right": sum(run["verdict"] == TRUTH[planted] for run in runs),
            "of": len(runs),
            "verdicts": Counter(str(run["verdict"]) for run in runs),
            "speedup, median of all runs": statistics.median(run["speedup"][0] for run in runs),
        }
        print(planted, summary[planted])
    if given.json is not None:
        command = (
            f"python -m benchmarks.truth --runs {given.runs} --seconds {given.seconds:g} --threads {given.threads}"
        )
        _record.write(given.json, "truth", command, {"summary": summary, "runs": found})


if __name__ == "__main__":
    main()
