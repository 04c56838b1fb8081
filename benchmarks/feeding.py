"""Validation that is slowed down by building graphs in the loader, as it is and with what is built kept.

Each way goes through the same validation set: batches of 256 nodes and 2,560 edges, built in plain Python, and a small
graph network. Ways take turns, an epoch each, in an order of chance, and their outputs are compared bit for bit in
every round. What the first epoch costs, in which a cache builds everything and checks samples, is told by itself.

    python -m benchmarks.feeding [--batches 32] [--rounds 20] [--workers 2] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import torchturbo
from benchmarks import _record, _turns
from examples.graphs import Batch, GraphNet, Graphs, loader
from torchturbo import cache_of, cached
from torchturbo.hardware import detect

GRAPHS = 8
"""In each batch."""
DEVICE = detect().device_type
PLAIN, WORKERS = "plain, no workers", "plain, {} workers"
KEPT, FOLDER, ALL = "cached", "cached in a folder", "cached, prefetch, {} workers"


def ways(batches: int, workers: int, folder: str) -> dict[str, Callable[[], Iterable[Batch]]]:
    """What makes the same batches, by way.

    Args:
        batches: of the validation set.
        workers: of those ways that have any.
        folder: where one of them keeps its batches.
    """
    graphs = Graphs(GRAPHS * batches)
    ahead: Any = getattr(torchturbo, "prefetch", None)

    def everything() -> Any:
        kept = cached(loader(graphs, num_workers=workers))
        return kept if ahead is None else ahead(kept, DEVICE)

    return {
        PLAIN: lambda: loader(graphs),
        WORKERS.format(workers): lambda: loader(graphs, num_workers=workers),
        KEPT: lambda: cached(loader(graphs)),
        FOLDER: lambda: cached(loader(graphs), folder),
        ALL.format(workers): everything,
    }


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


def measure(batches: int, workers: int, rounds: int) -> dict[str, Any]:
    """Times of epochs by way, what the first one cost, and whether all outputs are the same.

    Args:
        batches: of the validation set.
        workers: of those ways that have any.
        rounds: how often each way has its turn.
    """
    torch.manual_seed(0)
    model = GraphNet().to(DEVICE).eval()
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
        for name, make in ways(batches, workers, folder).items():
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
        stats = {name: cache_of(made[name]).stats().to_dict() for name in (KEPT, FOLDER)}
    speedups = {
        name: _turns.middle([plain / its for plain, its in zip(samples[PLAIN], samples[name], strict=True)])
        for name in made
    }
    return {
        "batches": batches,
        "nodes": Graphs().nodes * GRAPHS,
        "edges": Graphs().edges * GRAPHS,
        "workers": workers,
        "rounds": rounds,
        "prefetch": hasattr(torchturbo, "prefetch"),
        "same_outputs": same,
        "first_epoch_seconds": first,
        "cache": stats,
        "speedup": speedups,
        "summary": {name: _turns.compare(samples, name, PLAIN) for name in made},
        "samples_us": samples,
    }


def _show(found: dict[str, Any], console: Console) -> None:
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


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--batches", type=int, default=32)
    options.add_argument("--rounds", type=int, default=20, help="at least 4")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--threads", type=int, help="that torch computes with; 1 is steadier on a busy machine")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    found = measure(asked.batches, asked.workers, asked.rounds)
    _show(found, Console(width=120))
    if asked.json:
        command = f"python -m benchmarks.feeding --batches {asked.batches} --rounds {asked.rounds}"
        command += f" --workers {asked.workers} --threads {torch.get_num_threads()}"
        _record.write(asked.json, "feeding", command, found)
    return 0 if found["same_outputs"] else 1


if __name__ == "__main__":
    sys.exit(main())
