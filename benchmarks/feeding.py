"""Validation that is slowed down by building graphs in the loader: what `watch` says of it, and what helps how much.

Each way goes through the same validation set: batches of 256 nodes and 2,560 edges, built in plain Python, and a small
graph network. First `watch` goes around the plain loader, and what its alert says is kept. Then `tune_loader` chooses
workers for it, told how long a step takes. Then ways take turns, an epoch each, in an order of chance, and their
outputs are compared bit for bit in every round. What the first epoch costs, in which a cache builds everything and
checks samples, is told by itself. On the CPU `prefetch` returns the loader itself, and the record says so.

    python -m benchmarks.feeding [--batches 32] [--rounds 20] [--workers 2] [--budget 30] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import _record, _turns
from examples.graphs import Batch, GraphNet, Graphs, loader
from torchturbo import cache_of, cached, prefetch, tune_loader, watch
from torchturbo.errors import WatchWarning
from torchturbo.hardware import detect

GRAPHS = 8
"""In each batch."""
DEVICE = detect().device_type
PLAIN, WORKERS = "plain, no workers", "plain, {} workers"
TUNED, ALL = "workers that tune_loader chose", "cached, prefetch, tuned workers"
KEPT, FOLDER = "cached", "cached in a folder"
ALERT_AFTER = 3.0
"""Seconds of waiting after which `watch` says what for."""


def ways(graphs: Graphs, workers: int, tuned: dict[str, Any], folder: str) -> dict[str, Callable[[], Iterable[Any]]]:
    """What makes the same batches, by way.

    Args:
        graphs: the validation set.
        workers: of the way that has them untuned.
        tuned: arguments of `DataLoader` that `tune_loader` has chosen.
        folder: where one of them keeps its batches.
    """
    return {
        PLAIN: lambda: loader(graphs),
        WORKERS.format(workers): lambda: loader(graphs, num_workers=workers),
        TUNED: lambda: loader(graphs, **tuned),
        KEPT: lambda: cached(loader(graphs)),
        FOLDER: lambda: cached(loader(graphs), folder),
        ALL: lambda: prefetch(cached(loader(graphs, **tuned)), DEVICE),
    }


def named(model: GraphNet, graphs: Graphs) -> str:
    """What `watch` says of the plain loader; empty if it says nothing.

    Args:
        model: what is validated.
        graphs: the validation set.
    """
    batches = watch(loader(graphs), after=ALERT_AFTER, to=io.StringIO())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", WatchWarning)
        end = time.perf_counter() + 3 * ALERT_AFTER
        while not told and time.perf_counter() < end:
            validate(model, batches)
    return "\n".join(str(each.message) for each in told if issubclass(each.category, WatchWarning))


def step_seconds(model: GraphNet, graphs: Graphs) -> float:
    """What a step of validation takes without its data.

    Args:
        model: what is validated.
        graphs: the validation set.
    """
    batches = list(loader(graphs))
    validate(model, batches)
    began = time.perf_counter()
    validate(model, batches)
    return (time.perf_counter() - began) / len(batches)


def validate(model: GraphNet, batches: Iterable[Batch]) -> list[Tensor]:
    """An epoch of validation.

    Args:
        model: what is validated.
        batches: on any device.

    Returns:
        what it says of each batch.
    """
    with torch.inference_mode():
        return [model(Batch(*(part.to(DEVICE, non_blocking=True) for part in batch))).cpu() for batch in batches]


def measure(batches: int, workers: int, rounds: int, budget: float) -> dict[str, Any]:
    """What `watch` says, times of epochs by way, what the first one cost, and whether all outputs are the same.

    Args:
        batches: of the validation set.
        workers: of the way that has them untuned.
        rounds: how often each way has its turn.
        budget: seconds for `tune_loader`.
    """
    torch.manual_seed(0)
    model, graphs = GraphNet().to(DEVICE).eval(), Graphs(GRAPHS * batches)
    cause, step = named(model, graphs), step_seconds(model, graphs)
    tuning = tune_loader(loader(graphs), budget, step_seconds=step)
    outputs: dict[str, list[Tensor]] = {}
    first: dict[str, float] = {}
    same = True

    def judged() -> None:
        nonlocal same
        expected = outputs[PLAIN]
        same = same and all(
            len(its) == len(expected) and all(map(torch.equal, its, expected)) for its in outputs.values()
        )

    with TemporaryDirectory() as folder:
        made: dict[str, Iterable[Batch]] = {}
        for name, make in ways(graphs, workers, dict(tuning.best), folder).items():
            began = time.perf_counter()
            made[name] = make()
            outputs[name] = validate(model, made[name])
            first[name] = time.perf_counter() - began
        judged()

        def epoch(name: str) -> Callable[[int], None]:
            def run(epochs: int) -> None:
                for _ in range(epochs):
                    outputs[name] = validate(model, made[name])

            return run

        samples = _turns.take_turns({name: epoch(name) for name in made}, 1, rounds, judged)
        stats = {name: {**cache_of(made[name]).stats().to_dict(), "where": name} for name in (KEPT, FOLDER)}
    speedups = {
        name: _turns.middle([plain / its for plain, its in zip(samples[PLAIN], samples[name], strict=True)])
        for name in made
    }
    return {
        "batches": batches,
        "nodes": graphs.nodes * GRAPHS,
        "edges": graphs.edges * GRAPHS,
        "workers": workers,
        "rounds": rounds,
        "cause_named": cause,
        "step_seconds": step,
        "tuned": {"budget_seconds": budget, "best": dict(tuning.best), "why": tuning.why},
        "prefetch": "the loader itself, on the CPU" if DEVICE == "cpu" else f"a batch ahead, to {DEVICE}",
        "same_outputs": same,
        "first_epoch_seconds": first,
        "cache": stats,
        "speedup": speedups,
        "summary": {name: _turns.compare(samples, name, PLAIN) for name in made},
        "samples_us": samples,
    }


def _show(found: dict[str, Any], console: Console) -> None:
    console.print(f"watch: {found['cause_named'] or 'NOTHING IS SAID'}\n", markup=False, highlight=False)
    console.print(f"tune_loader: {found['tuned']['best']}: {found['tuned']['why']}\n", markup=False, highlight=False)
    table = Table(title=f"{found['batches']} batches of {found['nodes']} nodes, torch {torch.__version__}, {DEVICE}")
    for heading in ("an epoch of validation", "first, ms", "later, ms", "times as fast", "surely between"):
        table.add_column(heading, justify="left" if heading.startswith("an") else "right")
    for name, row in found["summary"].items():
        speedup = found["speedup"][name]
        table.add_row(
            name,
            f"{found['first_epoch_seconds'][name] * 1e3:,.0f}",
            f"{row['us']['median'] / 1e3:,.1f}",
            f"{speedup['median']:.2f}",
            "{:.2f} .. {:.2f}".format(*speedup["surely_between"]),
        )
    console.print(table)
    console.print(f"outputs: {'the same to the bit in every round' if found['same_outputs'] else 'DIFFERENT'}")
    console.print(f"prefetch: {found['prefetch']}")


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--batches", type=int, default=32)
    options.add_argument("--rounds", type=int, default=20, help="at least 4")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--budget", type=float, default=30, help="seconds for tune_loader")
    options.add_argument("--threads", type=int, help="that torch computes with; 1 is steadier on a busy machine")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    found = measure(asked.batches, asked.workers, asked.rounds, asked.budget)
    _show(found, Console(width=120))
    if asked.json:
        command = f"python -m benchmarks.feeding --batches {asked.batches} --rounds {asked.rounds}"
        command += f" --workers {asked.workers} --budget {asked.budget:g} --threads {torch.get_num_threads()}"
        _record.write(asked.json, "feeding", command, found)
    return 0 if found["same_outputs"] and found["cause_named"] else 1


if __name__ == "__main__":
    sys.exit(main())
