"""A small conv net on scikit-learn's handwritten digits, tested in a block: ``python -m examples.digits``.

Training is plain PyTorch. Only the test stands in ``with turbo("inference"):``, and what torch itself says of
its state is shown before, inside and after it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo import turbo
from torchturbo.hardware import detect

IMAGES_TO_TRAIN_ON = 1400  # of 1797
BATCH = 64

# What torch itself answers.
STATE: dict[str, Callable[[], object]] = {
    "gradients are recorded": torch.is_grad_enabled,
    "autocast": lambda: torch.is_autocast_enabled(detect().device_type),
    "autocast keeps cast weights": torch.is_autocast_cache_enabled,
    "float32 matmul precision": torch.get_float32_matmul_precision,
    "cuDNN picks by measuring": lambda: torch.backends.cudnn.benchmark,
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "threads": torch.get_num_threads,
}


@dataclass(frozen=True)
class Digits:
    """What a run of this example saw.

    Attributes:
        losses: the mean training loss of each epoch.
        plain: the share of test images told right without a block.
        inside: the same in the block.
        before: torch's state before the block; likewise `during` and `after`.
        during: see `before`.
        after: see `before`.
    """

    losses: list[float]
    plain: float
    inside: float
    before: dict[str, object]
    during: dict[str, object]
    after: dict[str, object]

    @property
    def everything_is_back(self) -> bool:
        """Whether torch says the same after the block as before it."""
        return self.before == self.after


def make_model() -> nn.Module:
    """Two convolutions over the 8x8 pixels, and a layer that names the digit."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


def load() -> tuple[Tensor, Tensor]:
    """All images, each pixel from 0 to 1, and the digits that they show."""
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16).unsqueeze(1)
    device = detect().device_type
    return images.to(device), torch.from_numpy(digits.target.astype(np.int64)).to(device)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, generator: torch.Generator) -> list[float]:
    """Trains `model`, and returns the mean loss of each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    means = []
    for _ in range(epochs):
        losses = []
        for chosen in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


def share_right(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of `images` whose digit `model` tells right."""
    told: Tensor = model(images).argmax(1)
    return (told == labels).float().mean().item()


def look() -> dict[str, object]:
    """What torch says of its own state at this moment."""
    return {question: ask() for question, ask in STATE.items()}


def run(epochs: int, seed: int) -> Digits:
    """Trains plainly, then tests without a block and in one."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = load()
    training = (images[:IMAGES_TO_TRAIN_ON], labels[:IMAGES_TO_TRAIN_ON])
    test = (images[IMAGES_TO_TRAIN_ON:], labels[IMAGES_TO_TRAIN_ON:])
    model = make_model().to(images.device)
    losses = train(model, *training, epochs, generator)
    plain = share_right(model, *test)

    before = look()
    with turbo("inference"):
        inside = share_right(model, *test)
        during = look()
    return Digits(losses, plain, inside, before, during, after=look())


def show(digits: Digits, console: Console) -> None:
    """Prints a run as a table."""
    table = Table(
        title='Handwritten digits: the test in a block of turbo("inference")',
        caption="Everything is back." if digits.everything_is_back else "NOT everything is back.",
    )
    for column in ("torch says", "before", "inside", "after"):
        table.add_column(column)
    for question, before in digits.before.items():
        inside, after = digits.during[question], digits.after[question]
        table.add_row(question, str(before), str(inside), str(after), style="bold" if inside != before else None)
    table.add_section()
    table.add_row("test images told right", f"{digits.plain:.1%}", f"{digits.inside:.1%}", "")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=__doc__)
    parser.add_argument("--epochs", type=int, default=8, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: %(default)s)")
    args = parser.parse_args(arguments)
    show(run(args.epochs, args.seed), Console())


if __name__ == "__main__":
    main()
