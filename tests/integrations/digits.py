"""scikit-learn's digits, and a small net for them: what each library trains here."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, BATCH = 50, 32


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images of 8 by 8, and what they show."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return images[: STEPS * BATCH], torch.tensor(data.target)[: STEPS * BATCH]


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Fifty batches, shuffled by a generator of their own."""
    return DataLoader(TensorDataset(*digits()), BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))


def net() -> nn.Module:
    """A net of convolutions, the same at each call."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(256, 10)
    )


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=3e-3)
