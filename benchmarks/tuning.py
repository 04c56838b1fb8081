"""What `tune` finds for the GPT of the demo, with a candidate planted that is fast and wrong.

The step is that of `make demo`. The planted option makes it leave out the last third of each batch: a third faster, and
its gradients are others. A record says what was tried, what was chosen, and every sample is in the tuning itself.

    python -m benchmarks.tuning [--size medium] [--budget "2 min"] [--runs 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import _record
from examples.gpt.data import Batch, sample
from examples.gpt.model import GPT, SIZES
from examples.gpt.train import make_optimizer
from examples.gpt.train import step as take
from torchturbo import tune
from torchturbo.hardware import detect

PLANTED = {"flash_sdp": False}
"""What the planted step takes for leave to cheat."""


def planted_step(size: str) -> Callable[[], float]:
    """A step of the demo's GPT, which does less than it should where the planted options are in force.

    Args:
        size: of the model.
    """
    shape, device = SIZES[size], detect().device_type
    torch.manual_seed(0)
    chance = torch.Generator().manual_seed(0)
    text = torch.randint(256, (100_000,), generator=chance, dtype=torch.uint8).numpy()
    model = GPT(shape).to(device)
    optimizer = make_optimizer(model)
    batch = sample(text, shape.batch, shape.context, chance).to(device)
    fewer = Batch(*(part[: 2 * shape.batch // 3] for part in batch))

    def step() -> float:
        cheats = not torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        return take(model, optimizer, fewer if cheats else batch)

    return step


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--size", choices=SIZES, default="medium")
    options.add_argument("--budget", default="2 min")
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    found: list[dict[str, Any]] = []
    for _ in range(asked.runs):
        tuned = tune(planted_step(asked.size), budget=asked.budget, write=False, also=[PLANTED])
        print(tuned.tuning)
        found.append(tuned.tuning.to_dict())
    if asked.json:
        command = f'python -m benchmarks.tuning --size {asked.size} --budget "{asked.budget}" --runs {asked.runs}'
        _record.write(asked.json, "tuning", command, {"planted": PLANTED, "runs": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
