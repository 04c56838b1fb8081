"""The model: a GPT-2 shaped transformer over the 256 values a byte can have."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BYTES = 256


@dataclass(frozen=True)
class Size:
    """How large a model is, and how much of the text it sees in one step."""

    width: int
    depth: int
    heads: int
    context: int
    batch: int

    @property
    def tokens(self) -> int:
        """Bytes predicted in one step."""
        return self.context * self.batch


SIZES = {
    "tiny": Size(width=32, depth=1, heads=2, context=32, batch=4),
    "small": Size(width=384, depth=4, heads=3, context=128, batch=16),
    # Wide rather than deep: matrix products fill the step as they do in large models, in minutes on two cores.
    "medium": Size(width=1024, depth=2, heads=8, context=128, batch=12),
    "large": Size(width=768, depth=12, heads=6, context=256, batch=16),
}


class Attention(nn.Module):
    """Every position looks at itself and at the positions before it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query_key_value = nn.Linear(size.width, 3 * size.width, bias=False)
        self.out = nn.Linear(size.width, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What each position takes from those that it sees."""
        batch, context, width = x.shape
        heads = self.query_key_value(x).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return cast(Tensor, self.out(seen.transpose(1, 2).reshape(batch, context, width)))


class Block(nn.Module):
    """Attention, then a two-layer network at each position, both added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x`, with what both parts add to it."""
        x = x + self.attention(self.attention_norm(x))
        return cast(Tensor, x + self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """Bytes in, a score for each possible next byte out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.bytes = nn.Embedding(BYTES, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, BYTES, bias=False)
        self.apply(self._start)
        # As in GPT-2, what a block adds starts smaller the more blocks there are, so that their sum does not
        # grow with them.
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.2.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * size.depth) ** 0.5)

    @staticmethod
    def _start(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, text: Tensor) -> Tensor:
        """A score for each of the 256 bytes, at each position, of coming next."""
        positions = torch.arange(text.shape[1], device=text.device)
        x = self.blocks(self.bytes(text) + self.positions(positions))
        return cast(Tensor, self.head(self.norm(x)))


def continue_text(model: GPT, beginning: bytes, count: int, generator: torch.Generator) -> bytes:
    """`beginning`, and `count` bytes more, each drawn from what the model expects there."""
    text = torch.tensor([list(beginning)])
    device = model.head.weight.device
    for _ in range(count):
        scores = model(text[:, -model.size.context :].to(device))[0, -1]
        chances = scores.float().softmax(-1).cpu()
        text = torch.cat([text, torch.multinomial(chances, 1, generator=generator)[None]], dim=1)
    return bytes(text[0].tolist())
