"""What watching a loop adds to a step of 10 ms, and to a loop of nothing but tiny steps.

Loops take turns: plain, under `torchturbo.watch` with a line now and then, with its bar (drawn into a file that says
it is a terminal), with JSON lines, and in a block with `monitor`. The step is computing by torch, without waiting for
data, as many products of matrices as take 10 ms here; the tiny one is three small layers and their optimizer.

What watching adds is far less than what the speed of a shared machine changes by from one loop to the next, so it is
also measured where it arises: the time between the end of a step and the beginning of the next one, when the step has
filled the caches with its own, and all that other threads of the process compute meanwhile, as if they did it in the
loop's way. These two together are `added`, beside the ratio of whole loops.

    python -m benchmarks.watching [--seconds .5] [--rounds 31] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import _record
from benchmarks._turns import WARM_UP, Samples, bars, compare, counted, take_turns
from torchturbo import turbo, watch

LIMIT = 0.005
"""The share of a 10 ms step that watching may take."""
STEP = 0.010
PLAIN = "plain"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        """What is asked before a bar is drawn."""
        return True


@contextmanager
def _on_a_terminal() -> Iterator[None]:
    with (
        mock.patch.object(sys, "stderr", _Terminal()),
        mock.patch.dict(os.environ, {"TERM": "xterm", "COLUMNS": "120"}),
    ):
        yield


def _step_of(seconds: float) -> Callable[[], object]:
    """A step that takes about so long by torch."""
    matrix = torch.randn(256, 256)

    def times(count: int) -> None:
        for _ in range(count):
            torch.mm(matrix, matrix)

    times(200)
    began = time.perf_counter()
    times(200)
    count = max(1, round(200 * seconds / (time.perf_counter() - began)))
    return lambda: times(count)


def _tiny() -> Callable[[], object]:
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, 16)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()

    return step


def ways(step: Callable[[], object], beside: Samples) -> dict[str, Callable[[int], object]]:
    """The contenders, each of which does so many steps over a loader of as many batches.

    Args:
        step: what they do.
        beside: gets the microseconds for a step that are not the step itself, by contender, a sample each time.
    """

    def loop(batches: Iterable[Any]) -> float:
        between = []
        ended = time.perf_counter()
        for _ in batches:
            between.append(time.perf_counter() - ended)
            step()
            ended = time.perf_counter()
        return statistics.median(between)

    def measured(name: str, run: Callable[[int], float]) -> Callable[[int], None]:
        def call(steps: int) -> None:
            others = time.process_time() - time.thread_time()
            between = run(steps)
            others = time.process_time() - time.thread_time() - others
            beside.setdefault(name, []).append((between + others / steps) * 1e6)

        return call

    def loader(steps: int) -> DataLoader[int]:
        return DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]

    def within(
        block: Callable[[], AbstractContextManager[object]], run: Callable[[int], float]
    ) -> Callable[[int], float]:
        def call(steps: int) -> float:
            with block():
                return run(steps)

        return call

    quiet: Any = {"to": io.StringIO()}
    found: dict[str, Callable[[int], float]] = {
        PLAIN: lambda steps: loop(loader(steps)),
        "again": lambda steps: loop(loader(steps)),
        "watch, lines": lambda steps: loop(watch(loader(steps), show="lines", **quiet)),
        "watch, json": lambda steps: loop(watch(loader(steps), show="json", **quiet)),
        "watch, bar": within(_on_a_terminal, lambda steps: loop(watch(loader(steps)))),
        "turbo(monitor=True)": within(lambda: turbo("exact", monitor=True), lambda steps: loop(loader(steps))),
    }
    return {name: measured(name, run) for name, run in found.items()}


def sampled(
    step: Callable[[], object], seconds: float, rounds: int, on: Callable[[], object]
) -> tuple[Samples, Samples]:
    """Microseconds for a step, and those of them that are not the step itself, by contender, a sample a round.

    Args:
        step: what is done.
        seconds: that a sample takes.
        rounds: how many.
        on: called after each round.
    """
    step()
    began = time.perf_counter()
    for _ in range(10):
        step()
    steps = max(10, round(seconds * 10 / (time.perf_counter() - began)))
    with mock.patch.object(sys, "stderr", io.StringIO()):
        beside: Samples = {}
        whole = take_turns(ways(step, beside), steps, rounds, on)
    return whole, {name: samples[WARM_UP:] for name, samples in beside.items()}


def main() -> int:
    """Runs the rounds and prints what they say; 1 if watching a 10 ms step takes more of it than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="that a sample takes")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    before = os.getloadavg()
    steps = {"10 ms": _step_of(STEP), "tiny": _tiny()}
    with bars() as progress:
        found = {
            name: sampled(
                step, arguments.seconds, arguments.rounds, counted(progress, name, arguments.rounds + WARM_UP)
            )
            for name, step in steps.items()
        }
    results = {
        name: {
            way: compare(whole, way, PLAIN) | {"added_us": compare(beside, way, PLAIN)["extra_us"]}
            for way in whole
            if way != PLAIN
        }
        for name, (whole, beside) in found.items()
    }
    table = Table("step", "way", "microseconds", "added", "surely between", "ratio of loops", "surely between")
    for name, contenders in results.items():
        for way, its in contenders.items():
            low, high = its["ratio"]["surely_between"]
            table.add_row(
                name,
                way,
                f"{its['us']['median']:.0f}",
                f"{its['added_us']['median']:.1f}",
                "{:.1f} to {:.1f}".format(*its["added_us"]["surely_between"]),
                f"{its['ratio']['median']:.4f}",
                f"{low:.4f} to {high:.4f}",
            )
    Console().print(table)
    if arguments.json:
        command = f"python -m benchmarks.watching --seconds {arguments.seconds:g} --rounds {arguments.rounds}"
        content = {
            "limit": LIMIT,
            "load_average_before_and_after": [before, os.getloadavg()],
            "microseconds": {name: whole for name, (whole, _) in found.items()},
            "microseconds_beside_the_step": {name: beside for name, (_, beside) in found.items()},
            "results": results,
        }
        _record.write(arguments.json, "watching", command, content)
    watched = [its for way, its in results["10 ms"].items() if way != "again"]
    return int(any(its["added_us"]["median"] > LIMIT * STEP * 1e6 for its in watched))


if __name__ == "__main__":
    sys.exit(main())
