"""One training loop, written twice: as anybody writes it, for a block that accumulates, and accumulating by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.checkpoint import checkpoint

from torchturbo import turbo

Autocast = str | None
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUTOCASTS = (None, "bf16", "fp16")


class Net(nn.Module):
    """A network with a branch that some micro-batches do not use, and what is asked for in the middle."""

    def __init__(self, middle: str = "plain") -> None:
        super().__init__()
        self.words = nn.Embedding(12, 8, sparse=True) if middle == "sparse" else None
        self.first, self.branch = nn.Linear(8, 8), nn.Linear(8, 8)
        self.rest = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.last = nn.Linear(8, 1)
        self.middle = middle

    def forward(self, x: Tensor, branch: bool = True) -> Tensor:
        if self.words is not None:
            x = x + self.words((x[:, 0].detach().abs() * 5).long() % 12)
        x = self.first(x)
        if branch:
            x = x + self.branch(x).sin()
        x = x.relu()
        if self.middle.startswith("checkpoint"):
            # Of float16 the one kind of checkpoint would make a leaf that is float16.
            x = checkpoint(self.rest, x.float(), use_reentrant=self.middle.endswith("reentrant"))
        else:
            x = self.rest(x)
        result: Tensor = self.last(x)
        return result


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": partial(SGD, lr=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": partial(Adam, lr=0.01),
    "AdamW": partial(AdamW, lr=0.01, foreach=True),
    "fused": partial(AdamW, lr=0.01, fused=True),
}

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": partial(StepLR, step_size=2, gamma=0.5),
    "OneCycleLR": partial(OneCycleLR, max_lr=0.2, total_steps=20),
    "CosineAnnealingWarmRestarts": partial(CosineAnnealingWarmRestarts, T_0=2),
    "ReduceLROnPlateau": partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=10.0),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o, 0.5, total_iters=2), ExponentialLR(o, 0.8)], milestones=[2]),
    "ChainedScheduler": lambda o: ChainedScheduler([ExponentialLR(o, 0.9), StepLR(o, 2)], optimizer=o),
}


@dataclass(frozen=True)
class Case:
    """What a loop does.

    Attributes:
        every: the micro-batches of a window.
        micro: those that come.
        autocast: in what forward passes run.
        order: where gradients are cleared.
        clear: and how.
        clip: by what gradients are clipped.
        optimizer: which.
        two: whether there are two of them, which share the work.
        backwards: the losses of a micro-batch, each with a backward.
        unused: the micro-batches that do without the branch.
        overflow: those whose loss is huge.
        epochs: the ends of epochs, as the micro-batches after which they come.
        flushes: whether an epoch ends with a flush.
        scheduler: which, and whether it steps after each micro-batch or each epoch.
        inside: whether optimizers and schedulers are made in the block.
        middle: what `Net` has there.
    """

    every: int = 2
    micro: int = 5
    autocast: Autocast = None
    order: str = "before forward"
    clear: str = "to none"
    clip: str | None = None
    optimizer: str = "momentum"
    two: bool = False
    backwards: int = 1
    unused: frozenset[int] = frozenset()
    overflow: frozenset[int] = frozenset()
    epochs: frozenset[int] = frozenset()
    flushes: bool = False
    scheduler: str | None = None
    by_epoch: bool = False
    inside: bool = False
    middle: str = "plain"


class Training:
    """What one run of a loop works with; made anew for each, and alike.

    Args:
        case: what it does.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        torch.manual_seed(0)
        self.model = Net(case.middle)
        self.batches = [(torch.randn(6, 8), torch.randn(6, 1)) for _ in range(case.micro)]
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedulers: list[Any] = []

    def begin(self) -> None:
        parameters = [p for name, p in self.model.named_parameters() if not name.startswith("words")]
        parts = [parameters[::2], parameters[1::2]] if self.case.two else [parameters]
        self.optimizers = [OPTIMIZERS[self.case.optimizer](part) for part in parts]
        if self.model.words is not None:
            self.optimizers.append(torch.optim.SparseAdam(self.model.words.parameters(), lr=0.01))
        if self.case.scheduler:
            # SequentialLR and OneCycleLR need what a sparse optimizer has not.
            self.schedulers = [SCHEDULERS[self.case.scheduler](o) for o in self.optimizers[: len(parts)]]

    def loss(self, number: int, which: int) -> Tensor:
        x, y = self.batches[number]
        loss = F.mse_loss(self.model(x + which, number not in self.case.unused), y)
        return loss * 1e9 if number in self.case.overflow else loss

    def clear(self, where: str) -> None:
        if where != self.case.order:
            return
        if self.case.clear == "model":
            self.model.zero_grad()
        elif self.case.clear == "by hand":
            for parameter in self.model.parameters():
                parameter.grad = None
        else:
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=self.case.clear == "to none")

    def clip(self) -> None:
        # Sparse gradients cannot be clipped.
        dense = [p for name, p in self.model.named_parameters() if not name.startswith("words")]
        if self.case.clip == "norm":
            nn.utils.clip_grad_norm_(dense, 0.05)
        elif self.case.clip == "value":
            nn.utils.clip_grad_value_(dense, 0.01)

    def schedule(self) -> None:
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(1.0)
            else:
                scheduler.step()

    def result(self, scale: float | None) -> list[Any]:
        return [
            {name: p.detach().clone() for name, p in self.model.named_parameters()},
            [optimizer.state_dict() for optimizer in self.optimizers],
            [{k: v for k, v in s.state_dict().items() if k != "_schedulers"} for s in self.schedulers],
            scale,
        ]


def block(case: Case) -> turbo:
    return turbo("fast", autocast=case.autocast, accumulate=case.every)  # type: ignore[arg-type]


def untouched(case: Case) -> list[Any]:
    """The loop as it is, in a block."""
    training, around = Training(case), block(case)
    if not case.inside:
        training.begin()
    with around as active:
        if case.inside:
            training.begin()
        for number in range(case.micro):
            training.clear("before forward")
            losses = [training.loss(number, which) for which in range(case.backwards)]
            training.clear("before backward")
            for loss in losses:
                loss.backward()
            training.clip()
            for optimizer in training.optimizers:
                optimizer.step()
            if not case.by_epoch:
                training.schedule()
            training.clear("after step")
            if number in case.epochs:
                if case.flushes:
                    active.flush()
                if case.by_epoch:
                    training.schedule()
    return training.result(around.scaler and around.scaler.get_scale())


def forward(autocast: Autocast) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", DTYPES[autocast], cache_enabled=False) if autocast else nullcontext()


def schedule(training: Training) -> None:
    with warnings.catch_warnings():
        # torch takes a step that a GradScaler has skipped for one that was forgotten.
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
        training.schedule()


def step(training: Training, scaler: torch.amp.GradScaler) -> None:
    for optimizer in training.optimizers:
        scaler.unscale_(optimizer)
    training.clip()
    for optimizer in training.optimizers:
        scaler.step(optimizer)
    scaler.update()
    if not training.case.by_epoch:
        schedule(training)
    for optimizer in training.optimizers:
        optimizer.zero_grad(set_to_none=training.case.clear != "in place")


def by_hand(case: Case) -> list[Any]:
    """The loop that somebody writes who has gradients accumulate."""
    training = Training(case)
    training.begin()
    scaler = torch.amp.GradScaler("cpu", enabled=case.autocast == "fp16")
    waiting = 0
    with turbo("fast", autocast=None):
        for number in range(case.micro):
            for which in range(case.backwards):
                with forward(case.autocast):
                    loss = training.loss(number, which)
                scaler.scale(loss / case.every).backward()
            waiting += 1
            if waiting == case.every or (case.flushes and number in case.epochs):
                waiting = 0
                step(training, scaler)
            if number in case.epochs and case.by_epoch:
                schedule(training)
        if waiting:
            step(training, scaler)
    return training.result(scaler.get_scale() if scaler.is_enabled() else None)


def differs(found: Any, expected: Any, where: str = "") -> str | None:
    """The first place where two results differ, in any bit, or None."""
    if isinstance(expected, Tensor):
        alike = isinstance(found, Tensor) and found.dtype == expected.dtype and found.shape == expected.shape
        same = alike and torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
        return None if same else f"{where}: {found} is not {expected}"
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return f"{where}: {found} is not {expected}"
        pairs: Any = [(key, found[key], value) for key, value in expected.items()]
    elif isinstance(expected, list | tuple):
        if len(found) != len(expected):
            return f"{where}: {found} is not {expected}"
        pairs = [(number, found[number], value) for number, value in enumerate(expected)]
    else:
        return None if callable(expected) or found == expected else f"{where}: {found} is not {expected}"
    return next((said for key, one, other in pairs if (said := differs(one, other, f"{where}[{key!r}]"))), None)


def check(case: Case) -> None:
    """Holds the loop in its block against the one by hand."""
    said = differs(untouched(case), by_hand(case))
    assert said is None, f"{case}: {said}"
