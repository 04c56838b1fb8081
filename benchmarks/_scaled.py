"""What `benchmarks.scaling` trains, and the loops that train it: untouched, and written by hand with a `GradScaler`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.gpt.data import sample
from examples.gpt.model import GPT, Size
from examples.gpt.train import loss_on, make_optimizer
from torchturbo import hardware

DEVICE = hardware.detect().device_type
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

GPT_SIZE = Size(width=96, depth=2, heads=2, context=64, batch=8)
"""The GPT of the demo, small: CPUs without fp16 instructions multiply float16 some 50 times slower than float32."""

Around = Callable[[], AbstractContextManager[object]]
Burst = Callable[[int], object]


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        model: what every way trains a copy of.
        loss: of the model on a batch.
        batches: taken in turn, again and again.
        optimizer: makes one for a model.
        clip: the greatest norm of the gradients, or None.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    batches: list[Any]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    clip: float | None = 1.0


def gpt() -> Task:
    """The GPT of the demo, on random bytes: what they are makes no difference to the time."""
    text = torch.randint(256, (100_000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    chance = torch.Generator().manual_seed(1)
    batches = [sample(text, GPT_SIZE.batch, GPT_SIZE.context, chance).to(DEVICE) for _ in range(8)]
    return Task(GPT(GPT_SIZE).to(DEVICE), loss_on, batches, make_optimizer)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)


def mlp(width: int = 32, batch: int = 16) -> Task:
    """Three layers so small that nearly all of a step is overhead."""
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    batches = [(torch.randn(batch, width, device=DEVICE), torch.randint(10, (batch,), device=DEVICE)) for _ in range(8)]
    return Task(
        model.to(DEVICE), lambda model, batch: F.cross_entropy(model(batch[0]).float(), batch[1]), batches, _sgd
    )


class Chain(nn.Module):
    """Small operations one after another: two autograd nodes for each link, one for each leaf, and one for the loss.

    Args:
        nodes: as many as the graph is to have, or one less.
        leaves: parameters, which the links use in turn.
    """

    def __init__(self, nodes: int, leaves: int) -> None:
        super().__init__()
        self.links = (nodes - leaves - 1) // 2
        self.leaves = nn.ParameterList(nn.Parameter(torch.ones(16)) for _ in range(leaves))

    def forward(self, batch: Tensor) -> Tensor:
        """The loss."""
        # A list of parameters looks each of them up by its name, which takes longer than to multiply with it.
        leaves = list(self.leaves)
        x = batch
        for leaf in itertools.islice(itertools.cycle(leaves), self.links):
            x = x * leaf + batch
        return x.sum()


def chain(nodes: int, leaves: int) -> Task:
    """A deep graph; its gradients are all about one, so that none overflows and none vanishes."""
    return Task(
        Chain(nodes, leaves).to(DEVICE),
        lambda model, batch: model(batch),
        [torch.full((16,), 1e-4, device=DEVICE)],
        lambda model: torch.optim.SGD(model.parameters(), lr=1e-9),
        clip=None,
    )


def count_nodes(loss: Tensor) -> int:
    """How many nodes the graph of a loss has, with those that end in a leaf."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


def parts(task: Task) -> tuple[nn.Module, torch.optim.Optimizer, Iterator[Any]]:
    """A copy of the model, an optimizer for it, and the batches without end: what every loop starts from."""
    model = copy.deepcopy(task.model)
    return model, task.optimizer(model), itertools.cycle(task.batches)


def untouched(task: Task, around: Around = nullcontext) -> tuple[nn.Module, Burst]:
    """The loop as anybody writes it, in a block that is entered and left around each burst."""
    model, optimizer, batches = parts(task)

    def burst(steps: int) -> list[float]:
        losses = []
        with around():
            for batch in itertools.islice(batches, steps):
                optimizer.zero_grad()
                loss = task.loss(model, batch)
                loss.backward()  # type: ignore[no-untyped-call]
                if task.clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip)
                optimizer.step()
                losses.append(loss.item())
        return losses

    return model, burst


def by_hand(task: Task, precision: str) -> tuple[nn.Module, Burst]:
    """The loop as it is written by hand for a precision; bf16 needs no scaler, and has none."""
    model, optimizer, batches = parts(task)
    dtype = DTYPES[precision]
    scaler = torch.amp.GradScaler(DEVICE) if precision == "fp16" else None

    def burst(steps: int) -> list[float]:
        losses = []
        for batch in itertools.islice(batches, steps):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype):
                loss = task.loss(model, batch)
            if scaler is None:
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if task.clip is not None:
                    scaler.unscale_(optimizer)
            if task.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            losses.append(loss.item())
        return losses

    return model, burst
