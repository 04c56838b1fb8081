"""A recurrent net that predicts the next of some symbols: many small products, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo._models.made import Made, made


@dataclass(frozen=True, slots=True)
class Size:
    """How large it is: numbers in each layer, layers, symbols in a sequence, and sequences in a batch."""

    width: int
    depth: int
    length: int
    batch: int


SIZES = {
    "tiny": Size(width=16, depth=1, length=8, batch=4),
    "small": Size(width=256, depth=2, length=48, batch=16),
    "medium": Size(width=768, depth=2, length=128, batch=32),
    "large": Size(width=2048, depth=3, length=256, batch=64),
}
SYMBOLS = 128


class Net(nn.Module):
    """Symbols in, a score for each possible next symbol out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, size.width)
        self.lstm = nn.LSTM(size.width, size.width, size.depth, batch_first=True)
        self.scores = nn.Linear(size.width, SYMBOLS)

    def forward(self, symbols: Tensor) -> Tensor:
        """Scores by sequence, place and symbol."""
        states, _ = self.lstm(self.symbols(symbols))
        scores: Tensor = self.scores(states)
        return scores


def make(size: str, device: torch.device) -> Made:
    """The model with a batch of random sequences.

    Args:
        size: its name.
        device: where it runs.
    """
    its = SIZES[size]
    model = Net(its).to(device)
    symbols = torch.randint(SYMBOLS, (its.batch, its.length + 1)).to(device)

    def loss() -> Tensor:
        return F.cross_entropy(model(symbols[:, :-1]).flatten(0, 1), symbols[:, 1:].flatten())

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return made(f"lstm {size}", model, optimizer, loss, f"{its.batch} sequences of {its.length} symbols")
