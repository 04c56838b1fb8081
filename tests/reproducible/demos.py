"""The GPT and the conv net of the examples, each for a few steps; found by name in other processes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from examples.digits import load, make_model, train
from examples.gpt.data import sample
from examples.gpt.model import GPT, SIZES
from examples.gpt.train import make_optimizer, step

TEXT = np.frombuffer(b" ".join(b"%d" % number for number in range(3000)), dtype=np.uint8)


def gpt() -> Callable[[], list[float]]:
    """Three steps of the tiny GPT."""
    model = GPT(SIZES["tiny"])
    optimizer = make_optimizer(model)
    generator = torch.Generator().manual_seed(0)

    def steps() -> list[float]:
        return [step(model, optimizer, sample(TEXT, 4, 32, generator)) for _ in range(3)]

    return steps


def conv() -> Callable[[], list[float]]:
    """An epoch of the conv net on some of the digits."""
    images, labels = (each[:256] for each in load())
    model = make_model()
    generator = torch.Generator().manual_seed(0)
    return lambda: train(model, images, labels, 1, generator)


# ------------------------------------------------------------------------------------- with nothing seeded in the code


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Some of the digits, augmented from all three streams that a worker has."""

    def __init__(self) -> None:
        self.images, self.labels = (each[:192] for each in load())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(1) + random.random() + float(np.random.random())
        return self.images[index] + 0.01 * noise, self.labels[index]


def one_is_odd(worker: int) -> None:
    """Gives one worker a seed of its own."""
    if worker == 1:
        torch.manual_seed(1234)


def trained(worker_init_fn: Callable[[int], None] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Makes and trains a GPT and a conv net, and returns all their parameters."""
    language = GPT(SIZES["tiny"])
    language_optimizer = make_optimizer(language)
    for _ in range(3):
        text = torch.randint(256, (4, 33))
        language_optimizer.zero_grad()
        scores = F.dropout(language(text[:, :-1]), 0.1)
        F.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten()).backward()
        language_optimizer.step()
    vision: nn.Module = make_model()
    vision_optimizer = torch.optim.Adam(vision.parameters())
    batches = DataLoader(Noisy(), batch_size=48, shuffle=True, num_workers=2, worker_init_fn=worker_init_fn)
    for images, labels in batches:
        vision_optimizer.zero_grad()
        F.cross_entropy(vision(images), labels).backward()
        vision_optimizer.step()
    return list(language.parameters()), list(vision.parameters())
