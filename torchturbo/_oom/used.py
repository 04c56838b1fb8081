"""What used the memory when it ran out, and what would have freed how much of it, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchturbo._oom.freed import Freed
from torchturbo._oom.struck import Phase
from torchturbo._words import size
from torchturbo.regions._here import thread


class Used(NamedTuple):
    """What used the memory when it ran out.

    Attributes:
        phase: where it ran out.
        device: the device, as torch writes it.
        weights: bytes.
        gradients: bytes.
        states: bytes of the optimizers' states.
        batch: bytes.
        copies: bytes that were kept to be put back.
        rest: bytes of all else that was allocated, activations above all; None where the device does not count.
        total: bytes of the device's memory, or None.
        intermediates: bytes that an optimizer that is not fused needs for its step at most.
        under_autocast: whether activations were half precision already.
    """

    phase: Phase
    device: str
    weights: int
    gradients: int
    states: int
    batch: int
    copies: int
    rest: int | None
    total: int | None
    intermediates: int
    under_autocast: bool

    def words(self) -> str:
        """A sentence."""
        parts = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer states", self.states),
            ("the batch", self.batch),
            ("copies of them", self.copies),
        ]
        told = [f"{name} {size(count)}" for name, count in parts if count]
        if self.rest is not None:
            told.append(f"activations and the rest {size(self.rest)}")
        else:
            told.append(f"and activations, which torch does not count on {self.device}")
        of = "" if self.total is None else f" of {size(self.total)}"
        return f"out of memory in {self.phase} on {self.device}{of}: {', '.join(told)}"

    def switches(self, *, split: bool, counted: Freed | None = None) -> list[str]:
        """What would have freed memory, each with how much, most first.

        Args:
            split: whether to split the batch is one of them.
            counted: what was counted by copies without memory, where it could be.
        """
        found: list[tuple[int, str]] = []
        if counted is not None:
            found = [
                (count, f"{name}: {size(count)} of {size(counted.peak)} at once in a step of {counted.model}")
                for name, count in counted.bytes.items()
            ]
        if self.phase == "the optimizer's step":
            if count := self.intermediates:
                found.append((count, f"fused_optimizer=True: up to {size(count)} of intermediates"))
        elif counted is not None:
            half = counted.activations // 2
            if split:
                found.append((half, f"on_oom='split': {size(half)} in two parts, and more in smaller ones"))
        elif self.rest is None:
            rest = "of the activations, which are not counted here"
            found += [(1, f"on_oom='split': half {rest}, and more in smaller parts")] if split else []
            found += [] if self.under_autocast else [(0, f"autocast='bf16': up to half {rest}")]
        else:
            half = self.rest // 2
            if split:
                found.append((half + 1, f"on_oom='split': {size(half)} in two parts, and more in smaller ones"))
            if not self.under_autocast:
                found.append((half, f"autocast='bf16': up to {size(half)} of activations"))
        return [text for _, text in sorted(found, reverse=True)]


def used(phase: Phase, weights: Iterable[Tensor], optimizers: Iterable[Optimizer], batch: Iterable[Tensor],
         copies: int = 0, under_autocast: bool = False) -> Used:  # fmt: skip
    """What uses the memory now.

    Args:
        phase: where it ran out.
        weights: those that the step trains.
        optimizers: that step with them.
        batch: the tensors of the batch.
        copies: bytes that are kept besides.
        under_autocast: whether the step's own block, which has ended, had activations in half precision.
    """
    weights, optimizers = list(weights), list(optimizers)
    device = next((each.device for each in weights), torch.device("cpu"))
    here = [each for each in weights if each.device == device]
    grads = [each.grad for each in here if each.grad is not None]
    states = [each for optimizer in optimizers for each in _states(optimizer)]
    own, of_grads, of_states, of_batch = (sum(each.nbytes for each in its) for its in (here, grads, states, batch))
    allocated, total = _counted(device)
    largest = max((_of_group(group) for optimizer in optimizers for group in optimizer.param_groups), default=0)
    return Used(
        phase=phase,
        device=str(device),
        weights=own,
        gradients=of_grads,
        states=of_states,
        batch=of_batch,
        copies=copies,
        rest=None if allocated is None else max(allocated - own - of_grads - of_states - of_batch - copies, 0),
        total=total,
        intermediates=largest,
        under_autocast=under_autocast or bool(thread.here.devices) or torch.is_autocast_enabled(device.type),
    )


def _states(optimizer: Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (each for each in state.values() if isinstance(each, Tensor))


def _of_group(group: dict[str, Any]) -> int:
    return sum(each.nbytes for each in group["params"] if each.grad is not None)


def _counted(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes that torch has allocated on a device, and those that it has; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "xpu":
        return torch.xpu.memory_allocated(device), int(torch.xpu.get_device_properties(device).total_memory)
    if device.type == "mps":
        return torch.mps.current_allocated_memory(), torch.mps.recommended_max_memory()
    return None, None
