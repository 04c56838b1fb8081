"""A transformer as GPT-2 has it, which predicts the next of some symbols: attention, norms and matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo._models.made import Made, made


@dataclass(frozen=True, slots=True)
class Size:
    """How large it is: numbers at each place, blocks, heads, symbols in a sequence, and sequences in a batch."""

    width: int
    depth: int
    heads: int
    length: int
    batch: int


SIZES = {
    "tiny": Size(width=16, depth=1, heads=2, length=8, batch=2),
    "small": Size(width=256, depth=2, heads=4, length=64, batch=8),
    "medium": Size(width=768, depth=6, heads=12, length=256, batch=16),
    "large": Size(width=1280, depth=24, heads=20, length=1024, batch=8),
}
SYMBOLS = 256


class Block(nn.Module):
    """Attention, then a net of two layers at each place, both added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.attention_norm = nn.LayerNorm(size.width)
        self.query_key_value = nn.Linear(size.width, 3 * size.width)
        self.attention_out = nn.Linear(size.width, size.width)
        self.net_norm = nn.LayerNorm(size.width)
        self.wide = nn.Linear(size.width, 4 * size.width)
        self.narrow = nn.Linear(4 * size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, with what both parts add to it."""
        parts: Tensor = self.query_key_value(self.attention_norm(x))
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (part.view(split).transpose(1, 2) for part in parts.chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(seen.transpose(1, 2).flatten(2))
        more: Tensor = self.narrow(F.gelu(self.wide(self.net_norm(x))))
        return x + more


class Net(nn.Module):
    """Symbols in, a score for each possible next symbol out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, size.width)
        self.places = nn.Embedding(size.length, size.width)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        self.scores = nn.Linear(size.width, SYMBOLS, bias=False)

    def forward(self, symbols: Tensor) -> Tensor:
        """Scores by sequence, place and symbol."""
        places = torch.arange(symbols.shape[1], device=symbols.device)
        scores: Tensor = self.scores(self.norm(self.blocks(self.symbols(symbols) + self.places(places))))
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

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return made(f"gpt {size}", model, optimizer, loss, f"{its.batch} sequences of {its.length:,} symbols")
