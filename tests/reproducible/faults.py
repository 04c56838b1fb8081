"""Functions for the checks, in a file of their own so that another process finds them by name."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset[Tensor]):
    """Adds noise that nobody has seeded, in whichever process loads it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        noise = np.random.default_rng().normal(size=4)
        return torch.full((4,), float(index)) + torch.from_numpy(noise).float() * 1e-3


def unseeded_worker(**options: Any) -> Callable[[], float]:
    """A step on what a worker of a data loader has augmented."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = DataLoader(Augmented(), batch_size=2, num_workers=1, **options)

    def step() -> float:
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    return step


WORDS = {"bishop", "castle", "king", "knight", "pawn", "queen", "rook", "square"}


def over_a_set() -> Tensor:
    """A sum in the order of a set of texts, which is another one in each process."""
    total = torch.zeros(64)
    for word in WORDS:
        total += torch.randn(64, generator=torch.Generator().manual_seed(len(word) * 31 + ord(word[0]))) / 3
    return total


class Scattered(nn.Module):
    """Adds rows up as atomic additions of a GPU do: in an order that is anybody's guess."""

    def __init__(self, in_order: Callable[[], bool] = bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.1, 1.0, 33))
        self.in_order = in_order

    def forward(self, rows: Tensor) -> Any:
        order = torch.arange(len(rows))
        if not self.in_order():
            chance = random.Random(os.urandom(8))
            order = torch.tensor(chance.sample(range(len(rows)), len(rows)))
        total = torch.zeros(33)
        for row in rows[order]:
            total = total + row * self.weight
        return total


def scattered(in_order: Callable[[], bool] = bool) -> tuple[nn.Module, Callable[[], None]]:
    """A model with such a layer in it, and three steps of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 33), nn.Sequential(nn.Tanh(), Scattered(in_order)))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(64, 8)

    def step() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

    return model, step


def raises() -> None:
    """Fails."""
    raise RuntimeError("out of cheese")


ended: Callable[[], Any] = lambda: os._exit(7)  # noqa: E731 - as a task killed for memory ends
