"""What processes end with, and how far it is from what others end with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def whole_parameters(module: nn.Module) -> list[Tensor]:
    """Copies of all parameters, put together where processes have parts of them."""
    return [
        (each.full_tensor() if hasattr(each, "full_tensor") else each).detach().clone() for each in module.parameters()
    ]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether these are the same bits."""
    return all(torch.equal(mine, its) for mine, its in zip(one, other, strict=True))


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference."""
    return max(float((mine - its).abs().max()) for mine, its in zip(one, other, strict=True))
