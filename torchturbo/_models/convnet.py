"""A residual net of convolutions, which sorts pictures into classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo._models.made import Made, made


@dataclass(frozen=True, slots=True)
class Size:
    """How large it is: channels at first, blocks at each of three resolutions, pixels a side, and pictures a batch."""

    width: int
    depth: int
    pixels: int
    batch: int


SIZES = {
    "tiny": Size(width=4, depth=1, pixels=8, batch=4),
    "small": Size(width=32, depth=1, pixels=32, batch=16),
    "medium": Size(width=64, depth=2, pixels=64, batch=64),
    "large": Size(width=128, depth=4, pixels=128, batch=128),
}
CLASSES = 10


class Block(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.past = nn.Identity() if (before, stride) == (after, 1) else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, or what is left of it at a coarser resolution, with what both convolutions add."""
        added = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(self.past(x) + added)


class Net(nn.Module):
    """Pictures in, a score for each class out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        widths = [size.width * 2**stage for stage in range(3)]
        self.stem = nn.Conv2d(3, size.width, 3, padding=1, bias=False)
        blocks = [
            Block(width if number else max(size.width, width // 2), width, 2 if stage and not number else 1)
            for stage, width in enumerate(widths)
            for number in range(size.depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.scores = nn.Linear(widths[-1], CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores by picture and class."""
        features: Tensor = self.blocks(F.relu(self.stem(pictures)))
        scores: Tensor = self.scores(features.mean(dim=(2, 3)))
        return scores


def make(size: str, device: torch.device) -> Made:
    """The model with a batch of random pictures.

    Args:
        size: its name.
        device: where it runs.
    """
    its = SIZES[size]
    model = Net(its).to(device)
    pictures = torch.randn(its.batch, 3, its.pixels, its.pixels).to(device)
    targets = torch.randint(CLASSES, (its.batch,)).to(device)

    def loss() -> Tensor:
        return F.cross_entropy(model(pictures), targets)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    shape = f"{its.pixels} by {its.pixels} pixels"
    return made(f"convnet {size}", model, optimizer, loss, f"{its.batch} pictures of {shape}")
