"""Steps that run out of memory where they are told to, beside the same steps with room for all."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchturbo import accelerate
from torchturbo.schedules import warmup_linear
from torchturbo.testing import injected_oom

STEPS = 3
WIDTH = 6


class Attention(nn.Module):
    """A tiny GPT's block over the samples' numbers, each of them a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.into, self.out = nn.Linear(1, 4), nn.Linear(4, 12), nn.Linear(4, 1)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x.unsqueeze(-1))
        query, key, value = self.into(self.norm(hidden)).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: Tensor = self.out(hidden + mixed).mean(1)
        return result


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(3 * (WIDTH - 2), 1)
    ),
    "gpt": Attention,
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda its: torch.optim.SGD(its, lr=0.05, momentum=0.9),
    "adamw": lambda its: torch.optim.AdamW(its, lr=0.01),
    "one by one": lambda its: torch.optim.AdamW(its, lr=0.01, foreach=False),
}
FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda x, y: (x, y),
    "dict": lambda x, y: {"x": x, "y": y, "which": [f"sample {n}" for n in range(len(x))]},
    "nested": lambda x, y: [{"x": x}, (y, torch.ones(1), 0.5)],
}
At = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True)
class Case:
    """A run of some steps.

    Attributes:
        samples: of the batches, in order.
        room: samples that fit.
        clears: where gradients are cleared.
        in_place: whether they are set to zeros, and not dropped.
        clips: whether they are clipped.
    """

    model: str = "mlp"
    optimizer: str = "adamw"
    samples: tuple[int, ...] = (7, 8, 5)
    room: int = 4
    at: At = "forward"
    form: str = "tuple"
    clears: Literal["first", "last"] = "first"
    in_place: bool = False
    clips: bool = True


class Trainer:
    """A model, what trains it, and what a loop counts."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        self.model = MODELS[case.model]().double()
        self.optimizer = OPTIMIZERS[case.optimizer](self.model.parameters())
        self.scheduler = warmup_linear(self.optimizer, total=2 * STEPS, warmup=0.5)
        self.seen: list[int] = []
        self.calls = 0
        # Each its own: what has worked is remembered with the step.
        self.splitting = accelerate(profile="exact", on_oom="split")(Trainer.step)

    def step(self, batch: Any) -> dict[str, Any]:
        self.calls += 1
        x, y, *_ = [each for each in tree_leaves(batch) if isinstance(each, Tensor)]
        self.seen.append(len(x))
        random.random(), np.random.rand(), torch.rand(1)
        if self.case.clears == "first":
            self.optimizer.zero_grad(set_to_none=not self.case.in_place)
        loss = (self.model(x) - y).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 0.1) if self.case.clips else None
        self.optimizer.step()
        self.scheduler.step()
        if self.case.clears == "last":
            self.optimizer.zero_grad(set_to_none=not self.case.in_place)
        return {"loss": loss, "sum": loss.item() * len(x), "norm": norm, "samples": len(x), "rate": 0.5}

    def split(self, batch: Any) -> dict[str, Any]:
        return self.splitting(self, batch)

    def by_hand(self, batch: Any, parts: list[int]) -> None:
        """The step as somebody writes it who accumulates over these parts."""
        x, y, *_ = [each for each in tree_leaves(batch) if isinstance(each, Tensor)]
        self.optimizer.zero_grad()
        for its, theirs in zip(x.split(parts), y.split(parts), strict=True):
            ((self.model(its) - theirs).square().mean() * (len(its) / len(x))).backward()
        if self.case.clips:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        self.scheduler.step()
        if self.case.clears == "last":
            self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """All that a step may change."""
        streams = random.getstate(), np.random.get_state(), torch.get_rng_state()
        return copy.deepcopy(
            {
                "weights": self.model.state_dict(),
                "gradients": [each.grad for each in self.model.parameters()],
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "training": [each.training for each in self.model.modules()],
                "own": (self.seen, self.calls, streams),
            }
        )


def batch_of(case: Case, number: int) -> Any:
    generator = torch.Generator().manual_seed(number)
    samples = case.samples[number]
    x = torch.randn(samples, WIDTH, generator=generator, dtype=torch.float64)
    return FORMS[case.form](x, torch.randn(samples, 1, generator=generator, dtype=torch.float64))


@contextmanager
def sizes_of(model: nn.Module) -> Iterator[list[int]]:
    """The samples that a model is called with."""
    found: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: found.append(len(args[0])))
    try:
        yield found
    finally:
        handle.remove()


def numbers(value: Any) -> list[Any]:
    return [each.tolist() if isinstance(each, Tensor | np.ndarray) else each for each in tree_leaves(value)]


def check_equal(case: Case) -> None:
    """The split step is the unsplit one within the order of sums, and to the bit the one accumulated by hand."""
    whole, split, hand = Trainer(case), Trainer(case), Trainer(case)
    for number, samples in enumerate(case.samples):
        batch = batch_of(case, number)
        expected = whole.step(batch)
        with injected_oom(case.room, at=case.at) as failed, sizes_of(split.model) as sizes:
            found = split.split(batch)
        # Out of memory in the optimizer's step, it is not known before that the parts' sum is not a batch too large.
        parts: list[int] = []
        while sum(parts) < samples:
            parts.insert(0, sizes.pop())
        assert sum(parts) == samples
        assert not failed or (len(parts) > 1 and (case.at == "optimizer" or max(parts) <= case.room))
        hand.by_hand(batch, parts)
        for one, other in zip(split.model.parameters(), whole.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert numbers(split.model.state_dict()) == numbers(hand.model.state_dict())
        assert numbers(split.optimizer.state_dict()) == numbers(hand.optimizer.state_dict())
        assert (
            numbers([p.grad for p in split.model.parameters()]) == numbers([p.grad for p in hand.model.parameters()])
            or case.in_place
        )
        assert found.keys() == expected.keys()
        for key in found:
            if found[key] is not None:
                torch.testing.assert_close(
                    torch.as_tensor(found[key]), torch.as_tensor(expected[key]), rtol=1e-9, atol=0
                )
        assert split.scheduler.last_epoch == number + 1
        assert split.seen[-len(parts) :] == parts


def check_unchanged(case: Case) -> None:
    """Where not even one sample fits, everything is bit for bit as before, and torch's error comes out."""
    trainer = Trainer(case)
    for number in range(len(case.samples) - 1):
        trainer.split(batch_of(case, number))
    batch = batch_of(case, len(case.samples) - 1)
    before = trainer.state()
    held = [each.grad for each in trainer.model.parameters()]
    with injected_oom(0, at=case.at) as failed:
        try:
            trainer.split(batch)
        except torch.OutOfMemoryError as error:
            notes = "\n".join(error.__notes__)
        else:
            raise AssertionError("it has come through")
    assert failed
    assert numbers(trainer.state()) == numbers(before)
    assert all(one.grad is other for one, other in zip(trainer.model.parameters(), held, strict=True))
    assert "everything is as it was before" in notes.lower()
    # And training goes on as if nothing had been.
    again = Trainer(case)
    for number in range(len(case.samples)):
        again.split(batch_of(case, number))
    trainer.split(batch)
    assert numbers(trainer.model.state_dict()) == numbers(again.model.state_dict())
