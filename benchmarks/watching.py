"""What watching a loop adds to a step of 10 ms, and to a loop of nothing but tiny steps.

Loops take turns: plain, under `torchturbo.watch` with a line now and then, with its bar (drawn into a file that says
it is a terminal), with JSON lines, and in a block with `monitor`. The step is computing by torch, without waiting for
data, as many products of matrices as take 10 ms here; the tiny one is three small layers and their optimizer.

    python -m benchmarks.watching [--seconds .2] [--rounds 61] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import os
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


def ways(step: Callable[[], object]) -> dict[str, Callable[[int], object]]:
    """The contenders, each of which does so many steps over a loader of as many batches.

    Args:
        step: what they do.
    """

    def loop(batches: Iterable[Any]) -> None:
        for _ in batches:
            step()

    def loader(steps: int) -> DataLoader[int]:
        return DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]

    def within(
        block: Callable[[], AbstractContextManager[object]], run: Callable[[int], None]
    ) -> Callable[[int], None]:
        def call(steps: int) -> None:
            with block():
                run(steps)

        return call

    quiet: Any = {"to": io.StringIO()}
    return {
        PLAIN: lambda steps: loop(loader(steps)),
        "again": lambda steps: loop(loader(steps)),
        "watch, lines": lambda steps: loop(watch(loader(steps), show="lines", **quiet)),
        "watch, json": lambda steps: loop(watch(loader(steps), show="json", **quiet)),
        "watch, bar": within(_on_a_terminal, lambda steps: loop(watch(loader(steps)))),
        "turbo(monitor=True)": within(lambda: turbo("exact", monitor=True), lambda steps: loop(loader(steps))),
    }


def sampled(step: Callable[[], object], seconds: float, rounds: int, on: Callable[[], object]) -> Samples:
    """Microseconds for a step, by contender, a sample a round.

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
        return take_turns(ways(step), steps, rounds, on)


def main() -> int:
    """Runs the rounds and prints what they say; 1 if watching a 10 ms step takes more of it than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.2, help="that a sample takes")
    parser.add_argument("--rounds", type=int, default=61)
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
        name: {way: compare(samples, way, PLAIN) for way in samples if way != PLAIN} for name, samples in found.items()
    }
    table = Table("step", "way", "microseconds", "more than plain", "ratio", "surely between")
    for name, contenders in results.items():
        for way, its in contenders.items():
            low, high = its["ratio"]["surely_between"]
            table.add_row(
                name,
                way,
                f"{its['us']['median']:.0f}",
                f"{its['extra_us']['median']:.1f}",
                f"{its['ratio']['median']:.4f}",
                f"{low:.4f} to {high:.4f}",
            )
    Console().print(table)
    if arguments.json:
        command = f"python -m benchmarks.watching --seconds {arguments.seconds:g} --rounds {arguments.rounds}"
        content = {
            "limit": LIMIT,
            "load_average_before_and_after": [before, os.getloadavg()],
            "microseconds": found,
            "results": results,
        }
        _record.write(arguments.json, "watching", command, content)
    watched = [its for way, its in results["10 ms"].items() if way != "again"]
    return int(any(its["ratio"]["median"] > 1 + LIMIT for its in watched))


if __name__ == "__main__":
    sys.exit(main())
