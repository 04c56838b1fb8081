"""Trains the byte-level GPT under a profile, and lets it write a few lines: ``python -m examples.train_gpt``.

The whole loop stands inside one block. Try ``--profile exact`` or ``--profile reproducible``, and compare.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.gpt.data import Text, gather, sample
from examples.gpt.model import GPT, SIZES, continue_text
from examples.gpt.train import make_optimizer, mean_loss, step
from torchturbo import accelerate, turbo
from torchturbo.hardware import detect


@accelerate(profile="inference")
def write(model: GPT, beginning: bytes, count: int, generator: torch.Generator) -> bytes:
    """Lets the model go on after `beginning`, without gradients."""
    return continue_text(model, beginning, count, generator)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.train_gpt", description=__doc__)
    parser.add_argument("--profile", default="fast", help="a profile of torchturbo's (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and batches (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("out"), help="where to keep the text (default: out/)")
    args = parser.parse_args(arguments)

    size = SIZES[args.size]
    device = detect().device_type
    text = Text.open(gather(args.data))
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = GPT(size).to(device)
    optimizer = make_optimizer(model)
    held_out = [sample(text.held_out, size.batch, size.context, generator).to(device) for _ in range(4)]

    began = time.perf_counter()
    with turbo(args.profile) as active:
        for number in range(1, args.steps + 1):
            batch = sample(text.training, size.batch, size.context, generator).to(device)
            loss = step(model, optimizer, batch)
            if number % 10 == 0 or number == args.steps:
                speed = number * size.tokens / (time.perf_counter() - began)
                print(f"step {number:5}   loss {loss:.4f}   {speed:,.0f} tokens/s", flush=True)
        active.report()

    print(f"held-out loss {mean_loss(model, held_out):.4f}")
    print(write(model, b"def ", 300, generator).decode(errors="replace"))


if __name__ == "__main__":
    main()
