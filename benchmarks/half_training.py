"""Whether fp16 and bf16 around unmodified training loops reach the loss that float32 reaches.

Each loop of `benchmarks._usual` is run as it is in float32, and in a block of each half precision, from the same
weights, once for every seed of the batches; the held-out losses at the end are all taken in float32. What is told is
what half precision moves them by on the same batches, in the mean over the seeds (difference) and one by one (drift),
beside what two runs of float32 differ by: on other batches, and from weights nudged by a millionth, as another order
of sums would nudge them. A last training begins with a scale far too large and raises it often, so that steps overflow
and are skipped.

    python -m benchmarks.half_training [--seeds 4] [--only gpt gpt2 resnet18] [--threads 1] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import _half_plot, _record, _turns, _usual
from torchturbo import hardware, turbo

DEVICE = hardware.detect().device_type
FLOAT32, NUDGED, OVERFLOWING = "float32", "float32, nudged", "fp16, overflowing"
HALVES = ("bf16", "fp16")
NUDGE = 1e-6


@dataclass(frozen=True)
class Loop:
    """A loop to run.

    Attributes:
        make: prepares a training for a seed, a number of steps and a device.
        steps: how many.
        seeds: at most so many.
        size: of the model and of what it sees in a step.
    """

    make: Callable[[int, int, str], _usual.Training]
    steps: int
    seeds: int
    size: dict[str, Any]


LOOPS = {
    "gpt": Loop(_usual.gpt, 500, 4, asdict(_usual.GPT_SIZE)),
    "gpt2": Loop(_usual.gpt2, 200, 4, _usual.GPT_2),
    "resnet18": Loop(_usual.resnet18, 150, 4, _usual.RESNET),
}

AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    FLOAT32: nullcontext,
    NUDGED: nullcontext,
    "bf16": lambda: turbo("fast", autocast="bf16"),
    "fp16": lambda: turbo("fast", autocast="fp16"),
    OVERFLOWING: lambda: turbo("fast", autocast="fp16", init_scale=2.0**32, growth_interval=20),
}
"""What stands around a loop, by precision; the loop itself is the same."""


def _watched(batches: Iterable[Any], watch: Callable[[], object]) -> Iterator[Any]:
    for batch in batches:
        yield batch
        watch()


def train(loop: Loop, precision: str, seed: int, watch: Callable[[], object]) -> dict[str, Any]:
    """Runs a loop once.

    Args:
        loop: one of `LOOPS`.
        precision: one of `AROUND`.
        seed: of the batches.
        watch: called after each step.
    """
    training = loop.make(seed, loop.steps, DEVICE)
    if precision == NUDGED:
        _nudge(training.model)
    before = training.judge()
    began = time.perf_counter()
    with AROUND[precision]() as active:
        losses = training.run(_watched(training.batches, watch))
    seconds = time.perf_counter() - began
    run = {"precision": precision, "seed": seed, "seconds": seconds, "losses": losses}
    if precision.startswith("fp16"):
        # Asked after the block, which updates the scale for the last step as it ends.
        run |= {"skipped_steps": active.scaler.skipped_steps, "scale": active.scaler.get_scale()}
    return run | {"held_out_before": before, "held_out": training.judge()}


@torch.no_grad()
def _nudge(model: torch.nn.Module) -> None:
    chance = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.mul_(1 + NUDGE * torch.randn(parameter.shape, generator=chance).to(parameter.device))


def _apart(pairs: Iterable[tuple[float, float]]) -> float:
    return math.sqrt(statistics.fmean((a - b) ** 2 for a, b in pairs))


def compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The noise of float32, and what each half precision makes of its loss.

    Args:
        runs: of one loop.
    """
    final = {(run["precision"], run["seed"]): run["held_out"] for run in runs}
    seeds = sorted({seed for _, seed in final})
    plain, nudged, *halves = ([final[precision, seed] for seed in seeds] for precision in (FLOAT32, NUDGED, *HALVES))
    # Root mean squares, over all pairs of seeds and over all seeds.
    noise = {
        "batches": _apart((a, b) for at, a in enumerate(plain) for b in plain[:at]),
        "rounding": _apart(zip(nudged, plain, strict=True)),
    }
    found: dict[str, Any] = {"noise": noise}
    for precision, ours in zip(HALVES, halves, strict=True):
        difference = statistics.fmean(ours) - statistics.fmean(plain)
        found[precision] = {
            "difference": difference,
            "drift": _apart(zip(ours, plain, strict=True)),
            "within_noise": abs(difference) <= max(noise.values()),
        }
    return found


def run_all(only: list[str], seeds: int, progress: Progress) -> dict[str, Any]:
    """Every training of some loops, and what follows from it.

    Args:
        only: the loops, by name.
        seeds: how many; two or more.
        progress: shows a bar for each loop.
    """
    found: dict[str, Any] = {}
    for name in only:
        loop = LOOPS[name]
        count = min(seeds, loop.seeds)
        trainings = [(precision, seed) for seed in range(count) for precision in (FLOAT32, NUDGED, *HALVES)]
        trainings.append((OVERFLOWING, 0))
        bar = progress.add_task(name, total=len(trainings) * loop.steps)
        runs = []
        for precision, seed in trainings:
            progress.update(bar, description=f"{name:8} {precision:17} seed {seed}")
            runs.append(train(loop, precision, seed, lambda bar=bar: progress.advance(bar)))  # type: ignore[misc]
        found[name] = {"steps": loop.steps, "size": loop.size, "figures": compare(runs), "runs": runs}
    return found


def table(name: str, of_loop: dict[str, Any]) -> Table:
    """A loop's trainings, by precision.

    Args:
        name: of the loop.
        of_loop: what was found of it.
    """
    figures, runs = of_loop["figures"], of_loop["runs"]
    noise = figures["noise"]
    shown = Table(
        title=f"{name}, {of_loop['steps']} steps, torch {torch.__version__}, {DEVICE}",
        caption=f"Other batches move float32 by {noise['batches']:.4f}, other rounding by {noise['rounding']:.4f}.",
    )
    for heading in (
        "",
        "held-out loss by seed",
        "mean",
        "difference",
        "drift",
        "within noise",
        "skipped",
        "scale",
        "ms a step",
    ):
        shown.add_column(heading, justify="right" if heading else "left")
    for precision in AROUND:
        mine = [run for run in runs if run["precision"] == precision]
        apart = figures.get(precision)
        shown.add_row(
            precision,
            " ".join(f"{run['held_out']:.4f}" for run in mine),
            f"{statistics.fmean(run['held_out'] for run in mine):.4f}",
            f"{apart['difference']:+.4f}" if apart else "",
            f"{apart['drift']:.4f}" if apart else "",
            ("yes" if apart["within_noise"] else "NO") if apart else "",
            " ".join(str(run["skipped_steps"]) for run in mine if "skipped_steps" in run),
            " ".join(f"2^{math.log2(run['scale']):g}" for run in mine if "scale" in run),
            f"{statistics.median(run['seconds'] for run in mine) / of_loop['steps'] * 1e3:,.0f}",
        )
    return shown


def _seeds(text: str) -> int:
    seeds = int(text)
    if seeds < 2:
        raise argparse.ArgumentTypeError("at least 2: the noise is what seeds differ by")
    return seeds


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seeds", type=_seeds, default=4, help="of the batches, at most (default: %(default)s)")
    options.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS), metavar="LOOP")
    options.add_argument("--threads", type=int, help="that torch computes with; 1 is steadier on a busy machine")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path, default=Path("out/half_training.png"), help="(default: %(default)s)")
    asked = options.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)

    with _turns.bars(live=True) as progress:
        found = run_all(asked.only, asked.seeds, progress)
    console = Console(width=150)
    for name, of_loop in found.items():
        console.print(table(name, of_loop))
    _half_plot.save(found, asked.plot)
    console.print(f"The plot is in {asked.plot}.")
    if asked.json:
        parts = "" if len(asked.only) == len(LOOPS) else f" --only {' '.join(asked.only)}"
        parts += f" --threads {torch.get_num_threads()}"
        command = f"python -m benchmarks.half_training --seeds {asked.seeds}{parts}"
        _record.write(asked.json, "half_training", command, found)


if __name__ == "__main__":
    main()
