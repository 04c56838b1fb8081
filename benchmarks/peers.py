"""The same model and loop as plain PyTorch, tuned by hand, under torchturbo, and rewritten for the peers, in turn.

Each way has what its own documents tell one to do for speed: bf16, fused AdamW, and with ``--compile`` `torch.compile`.
Only torchturbo's loop is the plain one, untouched. Ways take turns in one process, a burst each, in an order of chance
that is new every round; ratios are taken round by round. Tuned by hand stands there twice, to show what two of a kind
differ by. `make peers` installs Accelerate and Lightning Fabric.

    python -m benchmarks.peers [--rounds 40] [--only tiny gpt convnet] [--compile] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from benchmarks import _peers, _record, _turns
from benchmarks._scaled import DEVICE, Burst, Task, by_hand, mlp, untouched
from examples.gpt.data import sample
from examples.gpt.model import GPT, SIZES
from examples.gpt.train import loss_on
from torchturbo import turbo

PLAIN, HAND, AGAIN, OURS = "plain PyTorch", "tuned by hand", "tuned by hand, again", "torchturbo, loop untouched"
PRECISION: Final = "bf16"
Way = tuple[nn.Module, Burst]
Found = dict[str, Any]


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-4)


def _fused(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)


def tiny() -> Task:
    """Three layers so small that nearly all of a step is overhead."""
    return replace(mlp(), optimizer=_adamw)


def gpt() -> Task:
    """The GPT of the demo, of the size that `make demo` trains, on random bytes."""
    size = SIZES["medium"]
    text = torch.randint(256, (100_000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    chance = torch.Generator().manual_seed(1)
    batches = [sample(text, size.batch, size.context, chance).to(DEVICE) for _ in range(4)]
    return Task(GPT(size).to(DEVICE), loss_on, batches, _adamw)


def convnet() -> Task:
    """A plain residual net on images of 32 by 32 pixels."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """`x`, and what two convolutions make of it."""
            inner: torch.Tensor = self.second(F.relu(self.norm(self.first(x))))
            return x + inner

    stem = nn.Conv2d(3, 64, 3, padding=1)
    down = nn.Conv2d(64, 128, 3, stride=2, padding=1)
    model = nn.Sequential(
        stem, Block(64), Block(64), nn.ReLU(), down, Block(128), Block(128), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip
    batches = [(torch.randn(32, 3, 32, 32, device=DEVICE), torch.randint(10, (32,), device=DEVICE)) for _ in range(4)]
    return Task(
        model.to(DEVICE), lambda model, batch: F.cross_entropy(model(batch[0]).float(), batch[1]), batches, _adamw
    )


PARTS: dict[str, tuple[Callable[[], Task], int]] = {"tiny": (tiny, 50), "gpt": (gpt, 1), "convnet": (convnet, 2)}
"""What is trained, and the steps of a burst."""


def ways(task: Task, compiled: bool) -> dict[str, Way]:
    """Each way to train it; peers that are not installed are left out.

    Args:
        task: the model and the loop.
        compiled: whether each also compiles the model.
    """
    fused = replace(task, optimizer=_fused)
    if compiled and _peers.versions()["lightning-fabric"] is not None:
        importlib.import_module("lightning_fabric")  # it takes only what it has seen compiled
    model: Any = torch.compile(fused.model) if compiled else fused.model
    ready = replace(fused, model=model)
    block = turbo("fast", autocast=PRECISION, fused_optimizer=True, compile=compiled)
    around: Callable[[], AbstractContextManager[object]] = lambda: block  # noqa: E731
    found = {
        PLAIN: untouched(task),
        HAND: by_hand(ready, PRECISION),
        AGAIN: by_hand(ready, PRECISION),
        OURS: untouched(task, around),
    }
    for peer, version in _peers.versions().items():
        if version is not None:
            found[f"{peer} {version}, loop rewritten"] = _peers.REWRITTEN[peer](ready, PRECISION)
    return found


def race(name: str, rounds: int, compiled: bool, watch: Callable[[], object]) -> Found:
    """Samples of one part, and what follows from them.

    Args:
        name: of the part.
        rounds: how often each way has its turn.
        compiled: whether each also compiles the model.
        watch: called after each round.
    """
    torch.manual_seed(0)
    make, steps = PARTS[name]
    task = make()
    racing = ways(task, compiled)
    samples = _turns.take_turns({way: burst for way, (_, burst) in racing.items()}, steps, rounds, watch)
    return {
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "steps_in_a_burst": steps,
        "rounds": rounds,
        "summary": {way: _turns.compare(samples, way, HAND) for way in racing},
        "speedup_over_plain": {
            way: _turns.middle([p / o for p, o in zip(samples[PLAIN], samples[way], strict=True)]) for way in racing
        },
        "samples_us": samples,
    }


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    for way, row in found["summary"].items():
        faster = found["speedup_over_plain"][way]
        yield (
            way,
            f"{row['us']['median'] / 1e3:,.3f}",
            f"{faster['median']:.3f}",
            "{:.3f} .. {:.3f}".format(*faster["surely_between"]),
            f"{row['ratio']['median']:.4f}",
            "{:.4f} .. {:.4f}".format(*row["ratio"]["surely_between"]),
            f"{row['extra_us']['median']:+,.0f}",
        )


def _table(title: str, found: Found) -> Table:
    table = Table(title=f"{title}, {found['parameters']:,} parameters, torch {torch.__version__}, {DEVICE}")
    headings = ("", "ms a step", "plain = 1", "surely between", "by hand = 1", "surely between", "extra us")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for row in _rows(found):
        table.add_row(*row)
    return table


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    options.add_argument("--compile", action="store_true", help="each way also compiles the model")
    options.add_argument("--threads", type=int, help="that torch computes with; 1 is steadier on a busy machine")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    console, found = Console(width=140), dict[str, Any]()
    missing = [peer for peer, version in _peers.versions().items() if version is None]
    if missing:
        console.print(f"Not installed, so left out: {', '.join(missing)}. `make peers` installs them.", style="yellow")
    for name in asked.only:
        with console.status(name):
            found[name] = race(name, asked.rounds, asked.compile, lambda: None)
        console.print(_table(name + (", compiled" if asked.compile else ""), found[name]))
    if asked.json:
        words = " ".join(sys.argv[1:]).replace(f"--json {asked.json}", "").strip()
        content = {"peers": _peers.versions(), "compiled": asked.compile, **found}
        _record.write(asked.json, "peers", f"python -m benchmarks.peers {words}".strip(), content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
