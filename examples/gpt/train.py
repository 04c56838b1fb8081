"""The training step: what any PyTorch tutorial shows, left as it is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.gpt.data import Batch


def make_optimizer(model: nn.Module, rate: float = 3e-4) -> torch.optim.Optimizer:
    """AdamW as GPTs are trained with it; fused, it takes the same step in one pass over memory."""
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def loss_on(model: nn.Module, batch: Batch) -> Tensor:
    """How badly `model` foretells each next byte: the mean of the negative log-likelihood, in nats."""
    scores = model(batch.inputs)
    return F.cross_entropy(scores.float().flatten(0, 1), batch.targets.flatten())


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step of training; returns the loss before it."""
    optimizer.zero_grad()
    loss = loss_on(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def mean_loss(model: nn.Module, batches: Iterable[Batch]) -> float:
    """The mean loss over `batches`, without training on them."""
    model.eval()
    with torch.no_grad():
        losses = [loss_on(model, batch).item() for batch in batches]
    model.train()
    return sum(losses) / len(losses)
