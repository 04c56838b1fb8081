"""Learning rates over a run: torch's own schedulers, with the numbers that people think in.

A scheduler is stepped once after each optimizer step, ``scheduler.step()``. Under `turbo` it follows the optimizer:
where ``accumulate=`` has a step wait, or fp16 leaves one out, the schedule waits too, so that it ends as training does.
Without torchturbo they are plain schedulers of torch.

>>> import torch
>>> optimizer = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters(), lr=1e-3)
>>> scheduler = warmup_cosine(optimizer, warmup="10 %", total=100)
>>> rates = []
>>> for _ in range(100):
...     rates += scheduler.get_last_lr()
...     optimizer.step()
...     scheduler.step()
>>> [f"{rates[step]:.4f}" for step in (0, 5, 10, 55, 99)]
['0.0000', '0.0005', '0.0010', '0.0005', '0.0000']
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from torchturbo.errors import OptionValueError, TargetError
from torchturbo.regions._here import thread

__all__ = ["one_cycle", "warmup_cosine", "warmup_linear"]


def warmup_cosine(
    optimizer: Optimizer, *, total: int, warmup: int | float | str = 0, min_ratio: float = 0.0
) -> LRScheduler:
    """From 0 up to each group's learning rate in a line, down to the end in half a cosine, and then it stays.

    Step for step what ``get_cosine_schedule_with_warmup`` of Transformers is, with an end other than 0.

    Args:
        optimizer: whose groups' learning rates are those at the top.
        total: optimizer steps of the whole run.
        warmup: optimizer steps of the way up; or a part of `total`, as 0.1 or ``"10 %"``.
        min_ratio: what is left at the end, as a part of each group's learning rate, from 0 to 1.

    Raises:
        OptionValueError: a number that makes no schedule, as a warmup that is longer than the run.
        TargetError: `optimizer` is none.
    """
    return _Along(optimizer, _Cosine(*_steps(optimizer, warmup, total), _ratio(min_ratio)))


def warmup_linear(
    optimizer: Optimizer, *, total: int, warmup: int | float | str = 0, min_ratio: float = 0.0
) -> LRScheduler:
    """From 0 up to each group's learning rate in a line, down to the end in another, and then it stays there.

    Step for step what ``get_linear_schedule_with_warmup`` of Transformers is, with an end other than 0.

    Args:
        optimizer: whose groups' learning rates are those at the top.
        total: optimizer steps of the whole run.
        warmup: optimizer steps of the way up; or a part of `total`, as 0.1 or ``"10 %"``.
        min_ratio: what is left at the end, as a part of each group's learning rate, from 0 to 1.

    Raises:
        OptionValueError: a number that makes no schedule, as a warmup that is longer than the run.
        TargetError: `optimizer` is none.
    """
    return _Along(optimizer, _Linear(*_steps(optimizer, warmup, total), _ratio(min_ratio)))


def one_cycle(
    optimizer: Optimizer,
    *,
    total: int,
    warmup: int | float | str = 0.3,
    start_ratio: float = 1 / 25,
    end_ratio: float = 1 / 25e4,
    momentum: tuple[float, float] | None = (0.85, 0.95),
) -> LRScheduler:
    """Torch's `OneCycleLR` up to each group's learning rate; after `total` steps it stays there, and raises nothing.

    Args:
        optimizer: whose groups' learning rates are those at the top.
        total: optimizer steps of the whole run.
        warmup: optimizer steps of the way up; or a part of `total`, as 0.3 or ``"30 %"``.
        start_ratio: where it begins, as a part of each group's learning rate.
        end_ratio: where it ends, likewise.
        momentum: the momentum (or the first beta) at the top and at both ends. It is left as it is where this is None,
            and where the optimizer has none: torch would switch it on.

    Raises:
        OptionValueError: a number that makes no schedule, as a warmup that is longer than the run.
        TargetError: `optimizer` is none.
    """
    up, total = _steps(optimizer, warmup, total)
    if up < 2 or total - up < 1:
        raise OptionValueError(
            f"warmup={warmup!r}: {up} of {total} steps leave no way up or down; one cycle takes 2 steps up at least, "
            "and 1 down"
        )
    if not 0 < start_ratio <= 1 or not 0 < end_ratio <= start_ratio:
        raise OptionValueError(
            f"start_ratio={start_ratio!r}, end_ratio={end_ratio!r}: expected parts of the learning rate at the top, "
            "more than 0 and at most 1, and the end not above the start"
        )
    low, high = momentum or (0.0, 0.0)
    return _OneCycle(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=up / total,
        div_factor=1 / start_ratio,
        final_div_factor=start_ratio / end_ratio,
        cycle_momentum=momentum is not None and all(map(_has_momentum, optimizer.param_groups)),
        base_momentum=low,
        max_momentum=high,
    )


class _Following(LRScheduler):
    """A scheduler that stays where it is when fp16 under `turbo` has left the optimizer's step out."""

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Goes on by one step, if the optimizer has."""
        here = thread.here
        waited = None if getattr(self, "_is_initial", False) else here.left_out.get(self.optimizer)
        # Where no block scales, nobody sees the next step: it has waited, and goes on.
        if waited is None or (here.scaler is None and self in waited):
            super().step(*args, **kwargs)
        else:
            waited.add(self)


class _Along(_Following, LambdaLR):
    """Torch's, along a curve."""


class _Curve:
    """A part of the learning rate for each step. An object and no function, so that schedulers pickle and save it."""

    def __init__(self, warmup: int, total: int, min_ratio: float) -> None:
        self.warmup, self.total, self.min_ratio = warmup, total, min_ratio

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return step / self.warmup
        way = min((step - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return self.min_ratio + (1 - self.min_ratio) * self.left(way)

    def left(self, way: float) -> float:
        """What is left after a part of the way down."""
        raise NotImplementedError


class _Cosine(_Curve):
    def left(self, way: float) -> float:
        """Half a cosine."""
        return 0.5 * (1 + math.cos(math.pi * way))


class _Linear(_Curve):
    def left(self, way: float) -> float:
        """A line."""
        return 1 - way


class _OneCycle(_Following, OneCycleLR):
    """Torch's, which raises an error after its last step; this one stays there."""

    def get_lr(self) -> Any:
        """The learning rates of the step that it is at, or of the last one."""
        now = self.last_epoch
        self.last_epoch = min(now, self.total_steps - 1)
        try:
            return super().get_lr()
        finally:
            self.last_epoch = now


def _has_momentum(group: dict[str, Any]) -> bool:
    return "betas" in group or bool(group.get("momentum"))


def _steps(optimizer: Optimizer, warmup: int | float | str, total: int) -> tuple[int, int]:
    """The steps up, and those of all.

    Raises:
        OptionValueError: there are no such steps.
        TargetError: nothing steps.
    """
    if not hasattr(optimizer, "param_groups"):
        raise TargetError(
            f"a schedule is for an optimizer, and this is a {type(optimizer).__name__}: give it the optimizer that "
            "steps with the weights"
        )
    if type(total) is not int or total < 1:
        raise OptionValueError(
            f"total={total!r}: expected how many optimizer steps the run takes, an int of at least 1"
        )
    up = _up(warmup, total)
    if up is None:
        raise OptionValueError(
            f"warmup={warmup!r}: expected a number of steps, as 500, or a part of the run, as 0.1 or '10 %'"
        )
    if up > total:
        raise OptionValueError(f"warmup={warmup!r}: longer than the run, which is total={total} optimizer steps")
    return up, total


def _up(warmup: int | float | str, total: int) -> int | None:
    if type(warmup) is int:
        return warmup if warmup >= 0 else None
    part: float | None = None
    if isinstance(warmup, str) and warmup.rstrip().endswith("%"):
        try:
            part = float(warmup.rstrip()[:-1]) / 100
        except ValueError:
            return None
    elif type(warmup) is float:
        # 1.0 may be meant as one step or as the whole run.
        part = warmup if warmup < 1 else None
    return round(part * total) if part is not None and 0 <= part <= 1 else None


def _ratio(ratio: float) -> float:
    if type(ratio) not in (int, float) or not 0 <= ratio <= 1:
        raise OptionValueError(
            f"min_ratio={ratio!r}: expected a part of the learning rate, from 0 to 1: 0.1 leaves a tenth of it"
        )
    return float(ratio)
