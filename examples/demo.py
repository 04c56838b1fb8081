"""Trains a byte-level GPT plain and under turbo, side by side, and compares: ``python -m examples.demo``.

Both start from the same weights, are fed the same batches, and take a few steps each in turn. A third
training, in plain float32 on other batches, shows how much of a difference is mere noise. Then it runs the
handwritten digits of `examples.digits`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from examples import digits
from examples.gpt.data import Text, gather
from examples.gpt.model import SIZES
from examples.side_by_side import figures, plot, race, record, table
from torchturbo import Active, turbo
from torchturbo.hardware import detect

PROFILE = "fast"


def foresee(active: Active) -> str | None:
    """Why no speed-up is to be expected on this machine, as a sentence; None where one is."""
    refused = {decision.name: decision.refused for decision in active.plan.refused}
    if "autocast" not in refused:
        return None
    return (
        f"No speed-up is to be expected here: {refused['autocast']}. "
        f'So turbo("{PROFILE}") leaves autocast out, and both trainings compute in float32.'
    )


def compare(args: argparse.Namespace, console: Console) -> dict[str, object]:
    """Runs the race, shows it, and returns it as data."""
    device = detect().device_type
    size = SIZES[args.size]
    text = Text.open(gather(args.data))
    racing = race.line_up(size, args.seed, device, PROFILE)
    with turbo(PROFILE) as active:
        warning = foresee(active)
    console.print(
        f"A GPT of {len(racing.first_weights) / 1e6:.1f} million parameters (width {size.width}, "
        f"depth {size.depth}, context {size.context}, batch {size.batch}) on {device}, "
        f"and {len(text.training) / 1e6:.1f} MB of Python."
    )
    if warning:
        console.print(warning, style="bold yellow")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {arm.label: progress.add_task(arm.label, total=args.steps) for arm in racing.arms}

        def watch(arm: race.Arm) -> None:
            described = f"{arm.label:24} loss {arm.losses[-1]:.3f}"
            progress.update(bars[arm.label], completed=len(arm.losses), description=described)

        race.run(racing, text, args.steps, watch)

    summary = figures.Figures.of(racing)
    table.show(racing, summary, console)
    if warning:
        console.print(warning, style="bold yellow")
    plot.save(racing, summary, args.out)
    console.print(f"The plot is in {args.out}.")
    return record.of_race(racing, summary, text, active)


def _steps(text: str) -> int:
    steps = int(text)
    least = race.STEPS_PER_ROUND + 1
    if steps < least:
        raise argparse.ArgumentTypeError(f"at least {least}: the first {race.STEPS_PER_ROUND} only warm up")
    return steps


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--steps", type=_steps, default=42, help="of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="medium", help="of the model (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("out"), help="where to keep the text (default: out/)")
    parser.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the plot (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write everything that was seen to this file")
    args = parser.parse_args(arguments)

    console = Console()
    began = datetime.now(UTC)
    seen: dict[str, object] = {
        "date": began.isoformat(timespec="seconds"),
        "arguments": {"steps": args.steps, "seed": args.seed, "size": args.size},
        "environment": record.environment(),
        **compare(args, console),
    }
    handwritten = digits.run(epochs=8, seed=args.seed)
    console.print()
    digits.show(handwritten, console)
    seen["digits"] = asdict(handwritten)
    seen["minutes"] = (datetime.now(UTC) - began).total_seconds() / 60
    if args.json:
        record.save(seen, args.json)
        console.print(f"Everything that was seen is in {args.json}.")


if __name__ == "__main__":
    main()
