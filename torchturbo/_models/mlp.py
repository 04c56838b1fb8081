"""A plain net of wide layers, which sorts vectors into classes: matrix products and little else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo._models.made import Made, made


@dataclass(frozen=True, slots=True)
class Size:
    """How large it is: numbers in each layer, layers, and vectors in a batch."""

    width: int
    depth: int
    batch: int


SIZES = {
    "tiny": Size(width=32, depth=2, batch=16),
    "small": Size(width=512, depth=3, batch=256),
    "medium": Size(width=2048, depth=4, batch=1024),
    "large": Size(width=8192, depth=6, batch=4096),
}
CLASSES = 10


def make(size: str, device: torch.device) -> Made:
    """The model with a batch of random vectors.

    Args:
        size: its name.
        device: where it runs.
    """
    its = SIZES[size]
    layers: list[nn.Module] = []
    for _ in range(its.depth):
        layers += [nn.Linear(its.width, its.width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(its.width, CLASSES)).to(device)
    inputs = torch.randn(its.batch, its.width).to(device)
    targets = torch.randint(CLASSES, (its.batch,)).to(device)

    def loss() -> Tensor:
        return F.cross_entropy(model(inputs), targets)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return made(f"mlp {size}", model, optimizer, loss, f"{its.batch:,} vectors of {its.width:,}")
