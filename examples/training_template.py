"""The page to paste from: training with everything in its place, on a CPU or a GPU.

    python -m examples.training_template
    python -m examples.training_template --profile low_memory --batch 1024
    python -m examples.training_template --resume out/template.pt

Yours are `Images`, `make_model`, `loss_of` and the numbers in `main`: here scikit-learn's handwritten digits and a
small conv net. The loop below them is plain PyTorch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from torchturbo import PROFILES, Active, Profile, accelerate, cached, schedules, turbo
from torchturbo.hardware import detect

Batch = tuple[Tensor, Tensor]

# ---------------------------------------------------------------------------------------------------- yours: the data


class Images(Dataset[Batch]):
    """Digits and what they show; those to train on are shifted by up to a pixel, another way each time."""

    def __init__(self, *, train: bool) -> None:
        digits = load_digits()
        part = slice(None, 1400) if train else slice(1400, None)
        self.images = torch.from_numpy(digits.images[part]).float().unsqueeze(1) / 16
        self.labels = torch.from_numpy(digits.target[part]).long()
        self.train = train

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        image = self.images[index]
        if self.train:
            down, right = torch.randint(-1, 2, (2,)).tolist()
            image = image.roll((down, right), (1, 2))
        return image, self.labels[index]


# --------------------------------------------------------------------------------------------------- yours: the model


def make_model() -> nn.Module:
    """Two blocks of convolutions, and a layer that names the digit."""

    def block(channels: int, into: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, into, 3, padding=1), nn.GroupNorm(4, into), nn.ReLU(), nn.MaxPool2d(2))

    return nn.Sequential(block(1, 32), block(32, 64), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64 * 4, 10))


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over the samples of a batch, so that half a batch has the mean over half of them."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


# ------------------------------------------------------------------------------------------------------ one step, plain


# Adds nothing to the settings of the block around it; where a batch does not fit into memory, it is taken in parts.
@accelerate(profile=Profile("that of the block around it"), on_oom="split")
def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
    """One step of training; returns the loss before it."""
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # sees true gradients, in fp16 too
    optimizer.step()
    return loss.detach()


@accelerate(profile="inference")
def share_right(model: nn.Module, loader: DataLoader[Batch], device: str) -> float:
    """The share of a loader's images whose digit `model` tells right."""
    model.eval()
    right = torch.zeros((), device=device)
    count = 0
    for images, labels in loader:
        right += (model(images.to(device)).argmax(1) == labels.to(device)).sum()
        count += len(labels)
    model.train()
    return right.item() / count


# ------------------------------------------------------------------------------------------------ stopping and going on


def save(
    path: Path, epoch: int, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, active: Active
) -> None:
    """Writes all that a run needs to go on to the bit; whoever reads the file sees this one or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "turbo": active.state_dict(),  # random numbers, places in loaders, the scale of fp16
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def main(arguments: Sequence[str] | None = None) -> float:
    """The command line; returns the share of validation images told right in the end."""
    parser = argparse.ArgumentParser(prog="python -m examples.training_template")
    parser.add_argument("--profile", choices=PROFILES, default="fast", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="of training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="samples in a batch (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=Path("out/template.pt"), help="(default: %(default)s)")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--quiet", action="store_true", help="without a bar")
    args = parser.parse_args(arguments)

    device = detect().device_type
    around = turbo(
        args.profile,
        seed=args.seed,
        num_workers="auto",
        pin_memory="auto",
        prefetch=True,  # the next batch is on its way to the GPU; no effect without one
        monitor=not args.quiet,  # a bar: speed, share of time waiting for data, memory; names what holds it up
    )
    with around as active:
        training = DataLoader(Images(train=True), args.batch, shuffle=True, drop_last=True)
        # The same in every epoch, so it is built once.
        validation = cached(DataLoader(Images(train=False), 256))
        model = make_model().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate)
        # Counts steps of the optimizer, and waits with it where fp16 overflows.
        scheduler = schedules.warmup_cosine(optimizer, warmup="10 %", total=args.epochs * len(training))
        first = 0
        if args.resume is not None:
            state = torch.load(args.resume, weights_only=True)
            first = state["epoch"] + 1
            for each, name in ((model, "model"), (optimizer, "optimizer"), (scheduler, "scheduler"), (active, "turbo")):
                each.load_state_dict(state[name])

        right = 0.0
        for epoch in range(first, args.epochs):
            losses = []
            for batch in training:
                images, labels = (each.to(device) for each in batch)
                losses.append(step(model, (images, labels), optimizer))
                scheduler.step()
            right = share_right(model, validation, device)
            print(f"epoch {epoch:3}   loss {torch.stack(losses).mean():.4f}   validation {right:.1%}", flush=True)
            save(args.checkpoint, epoch, model, optimizer, scheduler, active)
        active.report()  # what was in force, and what has no effect on this machine and why
    return right


if __name__ == "__main__":
    main()
