"""What `accelerate(model, compile=True)` costs beside the same written by hand: torch.compile and torch.autocast.

The GPT of the demo and the conv net of the digits train on the same batches, a burst each in turn, round after round;
ratios are taken round by round. Both start from the same weights, so that their losses can be laid side by side.

    python -m benchmarks.compiling [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import _record
from examples.digits import load, make_model
from examples.gpt.model import GPT, SIZES
from torchturbo import accelerate, hardware, turbo

_DEVICE = hardware.detect().device_type
_DTYPE = torch.bfloat16
Batch = tuple[Tensor, Tensor]


def _class_loss(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).float().flatten(0, -2), batch[1].flatten())


def _gpt() -> tuple[nn.Module, list[Batch], int]:
    size = SIZES["small"]
    source = Path(torch.nn.functional.__file__).read_bytes()
    text = torch.tensor(list(source[:200_000]))
    starts = torch.randint(len(text) - size.context - 1, (8, size.batch))
    batches = [
        (
            torch.stack([text[at : at + size.context] for at in chosen]).to(_DEVICE),
            torch.stack([text[at + 1 : at + 1 + size.context] for at in chosen]).to(_DEVICE),
        )
        for chosen in starts.tolist()
    ]
    return GPT(size).to(_DEVICE), batches, 2


def _digits() -> tuple[nn.Module, list[Batch], int]:
    images, labels = load()
    chosen = torch.split(torch.randperm(len(images))[: 8 * 128], 128)
    return make_model().to(_DEVICE), [(images[each], labels[each]) for each in chosen], 60


MODELS: dict[str, Callable[[], tuple[nn.Module, list[Batch], int]]] = {"gpt": _gpt, "digits": _digits}
"""By name: a model, its batches, and the steps in a burst."""


@dataclass
class Arm:
    """One way to train.

    Attributes:
        model: what is trained.
        forward: how it is called.
        around: made anew around each burst.
        losses: of every step.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    around: Callable[[], Any]
    losses: list[float]

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)

    def burst(self, batches: Iterator[Batch], steps: int) -> float:
        """Milliseconds for a step."""
        start = time.perf_counter()
        losses = []
        with self.around():
            for _ in range(steps):
                self.optimizer.zero_grad()
                loss = _class_loss(self.forward, next(batches))
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                losses.append(loss.detach())
        self.losses += [loss.item() for loss in losses]
        return (time.perf_counter() - start) / steps * 1e3


def _by_hand(model: nn.Module) -> Callable[[Tensor], Tensor]:
    compiled = torch.compile(model)

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(_DEVICE, _DTYPE):
            scores: Tensor = compiled(inputs)
        return scores.float()

    return forward


def arms(model: nn.Module) -> dict[str, Arm]:
    """Every way, each with its own copy of the model."""
    eager, hand, again, module, block = (copy.deepcopy(model) for _ in range(5))
    return {
        "eager float32": Arm(eager, eager, nullcontext, []),
        "by hand": Arm(hand, _by_hand(hand), nullcontext, []),
        # What two of a kind differ by.
        "by hand, again": Arm(again, _by_hand(again), nullcontext, []),
        "accelerate(model, compile=True)": Arm(module, accelerate(module, compile=True), nullcontext, []),
        'with turbo("fast", compile=True)': Arm(block, block, lambda: turbo("fast", compile=True), []),
    }


def _round_robin(batches: list[Batch]) -> Iterator[Batch]:
    while True:
        yield from batches


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Milliseconds for a step, by way, a sample a round, and what they computed.

    Args:
        name: one of `MODELS`.
        rounds: how often each way has its turn, after three to warm up.
    """
    torch.manual_seed(0)
    model, batches, steps = MODELS[name]()
    ways = arms(model)
    sources = {way: _round_robin(batches) for way in ways}
    samples: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for each in range(rounds + 3):
        for way in order:
            taken = ways[way].burst(sources[way], steps)
            if each >= 3:
                samples[way].append(taken)
        order.reverse()
    hand = ways["by hand"]
    summary = {}
    for way, arm in ways.items():
        ratios = [a / b for a, b in zip(samples[way], samples["by hand"], strict=True)]
        with torch.no_grad(), arm.around():
            scores, expected = arm.forward(batches[0][0]).float(), hand.forward(batches[0][0]).float()
        summary[way] = {
            "median_ms": statistics.median(samples[way]),
            "ratio_to_by_hand": statistics.median(ratios),
            "middle_half": statistics.quantiles(ratios, n=4)[::2],
            "first_loss": arm.losses[0],
            "last_loss": arm.losses[-1],
            "largest_difference_of_scores": (scores - expected).abs().max().item(),
            "largest_score": expected.abs().max().item(),
            "keys_unchanged": list(arm.model.state_dict()) == list(model.state_dict()),
        }
    return {"summary": summary, "samples_ms": samples, "losses": {way: arm.losses for way, arm in ways.items()}}


def _table(name: str, summary: dict[str, Any]) -> Table:
    table = Table(title=f"{name}: a training step, torch {torch.__version__}, {_DEVICE}")
    for heading in ("", "median ms", "by hand = 1", "middle half", "first loss", "last loss", "keys"):
        table.add_column(heading, justify="left" if not heading else "right")
    for way, row in summary.items():
        low, high = row["middle_half"]
        table.add_row(
            way,
            f"{row['median_ms']:.2f}",
            f"{row['ratio_to_by_hand']:.3f}",
            f"{low:.3f} .. {high:.3f}",
            f"{row['first_loss']:.4f}",
            f"{row['last_loss']:.4f}",
            "unchanged" if row["keys_unchanged"] else "CHANGED",
        )
    return table


def record(rounds: int, path: Path | None) -> None:
    """Measures, prints tables and, where a path is given, writes a record.

    Args:
        rounds: how often each way has its turn.
        path: of the record.
    """
    found = {}
    for name in MODELS:
        found[name] = measure(name, rounds)
        Console(width=120).print(_table(name, found[name]["summary"]))
    if path:
        _record.write(path, "compiling", f"python -m benchmarks.compiling --rounds {rounds}", found)


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    record(asked.rounds, asked.json)


if __name__ == "__main__":
    main()
