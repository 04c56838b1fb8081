"""What the profiles buy on a GPU: overhead, and a GPT step under each, in one run with its records.

python -m benchmarks.gpu [--steps 60] [--records benchmarks/records]
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import _record, compiling, overhead
from examples.gpt.data import Text, gather
from examples.gpt.model import GPT, SIZES
from examples.side_by_side.race import Arm
from torchturbo import hardware, turbo

PROFILES = ("exact", "low_memory", "fast", "max")
STEPS_PER_ROUND = 3


def race(steps: int, size: str) -> dict[str, list[float]]:
    """Seconds of each step by profile, and in plain torch, a few steps each in turn.

    Args:
        steps: of each.
        size: of the model, from `examples.gpt.model.SIZES`.
    """
    text = Text.open(gather(Path("out")))
    torch.manual_seed(0)
    model = GPT(SIZES[size]).to("cuda")
    arms = [Arm("plain", model, 0, nullcontext)]
    arms += [Arm(profile, model, 0, lambda profile=profile: turbo(profile)) for profile in PROFILES]  # type: ignore[misc]
    for done in range(0, steps, STEPS_PER_ROUND):
        for arm in arms if done % 2 else reversed(arms):
            arm.run(text, STEPS_PER_ROUND)
    return {arm.label: arm.seconds for arm in arms}


def main() -> None:
    """Measures, prints tables and writes records."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--size", default="large", choices=SIZES)
    options.add_argument("--records", type=Path, default=Path("benchmarks/records"))
    asked = options.parse_args()
    here = hardware.detect()
    if here.device_type != "cuda":
        sys.exit(f"this benchmark needs an NVIDIA GPU: {' '.join(here.reasons) or 'there is none here'}")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    overhead.record(200, asked.records / f"{day}-gpu-overhead.json")
    compiling.record(30, asked.records / f"{day}-gpu-compiling.json")
    seconds = race(asked.steps, asked.size)
    table = Table(title=f"one step of the {asked.size} GPT on {here.gpus[0].name}, torch {torch.__version__}")
    for heading in ("", "median ms", "speed-up over plain"):
        table.add_column(heading, justify="left" if not heading else "right")
    summary = {}
    for name, taken in seconds.items():
        ratio = statistics.median(p / t for p, t in zip(seconds["plain"], taken, strict=True))
        summary[name] = {"median_seconds": statistics.median(taken), "speed_up": ratio}
        table.add_row(name, f"{statistics.median(taken) * 1e3:.2f}", f"{ratio:.2f}")
    Console().print(table)
    command = f"python -m benchmarks.gpu --steps {asked.steps} --size {asked.size}"
    _record.write(asked.records / f"{day}-gpu-gpt.json", "gpu", command, {"summary": summary, "samples_s": seconds})


if __name__ == "__main__":
    main()
