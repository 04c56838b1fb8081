"""`distribute`: a model on the processes that torchrun has started, by torch's own means; else as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from torchturbo._distribute.checkpoint import load_checkpoint, save_checkpoint
from torchturbo._distribute.choice import Strategy, bytes_of, chosen, room_of
from torchturbo._distribute.group import joined
from torchturbo._distribute.loader import Sharded, shard
from torchturbo._distribute.weights import ON_RANKS
from torchturbo._told import Told
from torchturbo._words import seconds_of
from torchturbo.errors import DistributedError, TargetError
from torchturbo.regions._sharded import is_distributed

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Distribution",
    "Sharded",
    "distribute",
    "distribution_of",
    "load_checkpoint",
    "save_checkpoint",
    "shard",
]


@dataclass(frozen=True, slots=True)
class Distribution(Told):
    """How a model stands on the ranks of a run.

    Attributes:
        strategy: ``"ddp"``, ``"fsdp"``, or ``"none"`` in one process.
        why: the reason for it, as a sentence.
        rank: which process this is.
        ranks: how many there are.
        device: what this one computes on, in torch's words.
        backend: what they talk by; empty in one process.
        started: whether the process group was started by `distribute`.
        units: the modules that are sharded one by one; 0 under ``"ddp"``.
        gradient_dtype: what gradients are sent in; empty for what they are.
    """

    strategy: Literal["ddp", "fsdp", "none"]
    why: str
    rank: int = 0
    ranks: int = 1
    device: str = ""
    backend: str = ""
    started: bool = False
    units: int = 0
    gradient_dtype: str = ""

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        lines = [f"{self.strategy}: {self.why}"]
        if self.strategy != "none":
            group = "started here" if self.started else "which the code has started"
            lines.append(f"rank {self.rank} of {self.ranks} on {self.device}, by {self.backend}, {group}")
        if self.units:
            lines.append(f"{self.units} units are sharded one by one, and the rest together")
        if self.gradient_dtype:
            lines.append(f"gradients are sent in {self.gradient_dtype}")
        return Text("\n".join(lines))


_DISTRIBUTED: WeakKeyDictionary[nn.Module, Distribution] = WeakKeyDictionary()


def distribute(
    model: nn.Module,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    *,
    device: torch.device | str | None = None,
    gradient_dtype: torch.dtype | None = None,
    mixed_precision: torch.dtype | None = None,
    units: Sequence[type[nn.Module] | str] | None = None,
    whole_sums: bool = False,
    timeout: float | str | timedelta | None = None,
    **more: Any,
) -> nn.Module:
    """Puts a model on all processes of a run: `DistributedDataParallel` around it, or `fully_shard` (FSDP2) in it.

    Where torchrun has started this process and there is no process group yet, one is started. In one process the model
    comes back as it is, so that a script runs in both. Make the optimizer afterwards, of what is returned.

    Args:
        model: the model; it is moved to the device of this rank, and all ranks get the weights of the first.
        strategy: ``"ddp"``, where each rank holds all; ``"fsdp"``, where each holds a part; ``"auto"`` for ddp where
            weights, gradients and two moments of an optimizer take half of a rank's memory or less.
        device: what this rank computes on; by itself ``cuda:LOCAL_RANK`` where there is a GPU, else the CPU.
        gradient_dtype: ``torch.bfloat16`` to send gradients in half the bytes, with 8 bits of precision.
        mixed_precision: under fsdp, what forward and backward compute in, besides autocast; weights stay what they are.
        units: under fsdp, the classes of modules (or their names) that are sharded one by one; by itself what the
            model names in ``_no_split_modules``, else its repeated blocks.
        whole_sums: under fsdp, with ``turbo(accumulate=)``: keep the sums over micro-batches whole on each rank, and
            reduce once for each step. It takes the memory of one more model in full.
        timeout: how long ranks wait for one another in a group that is started here, in seconds, as ``"5 min"`` or as
            a `datetime.timedelta`; None for torch's own.
        **more: handed to `DistributedDataParallel` or `fully_shard`.

    Raises:
        TargetError: it is no module, or is distributed already.
        OptionValueError: `timeout` is no time.
        DistributedError: an argument that the strategy has no use for, or a process group that the device cannot use.

    >>> model = nn.Linear(2, 2)
    >>> distribute(model) is model  # in one process
    True
    >>> print(distribution_of(model))
    none: there is one process
    """
    _refuse(model, strategy, gradient_dtype)
    ranks = joined(device, None if timeout is None else seconds_of(timeout, "timeout"))
    if ranks is None:
        if device is not None:
            model.to(device)
        _DISTRIBUTED[model] = Distribution("none", "there is one process")
        return model
    from torchturbo._distribute.wrap import agreed, in_ddp, in_fsdp

    chose: Strategy
    if strategy == "auto":
        chose, why = agreed(ranks, chosen(bytes_of(model), room_of(ranks.device, ranks.beside)))
    else:
        chose, why = strategy, "it was asked for"
    found, count = model, 0
    if chose == "ddp":
        for name, asked in {"mixed_precision": mixed_precision, "units": units, "whole_sums": whole_sums}.items():
            if asked and strategy == "ddp":
                raise DistributedError(f"{name}= is for strategy='fsdp', and this is 'ddp'")
        found = in_ddp(model, ranks, gradient_dtype, more)
    else:
        count = in_fsdp(model, ranks, gradient_dtype, mixed_precision, units, whole_sums, more)
    sent = "" if gradient_dtype is None else str(gradient_dtype).removeprefix("torch.")
    _DISTRIBUTED[found] = Distribution(
        chose, why, ranks.rank, ranks.ranks, str(ranks.device), ranks.backend, ranks.started, count, sent
    )
    ON_RANKS[found] = None
    return found


def distribution_of(model: nn.Module) -> Distribution:
    """How `distribute` has put a model on the ranks, and why so.

    Args:
        model: what `distribute` has returned.

    Raises:
        TargetError: it has not.
    """
    if model not in _DISTRIBUTED:
        raise TargetError(f"distribute() has not returned this {type(model).__name__}: give it what it returned")
    return _DISTRIBUTED[model]


def _refuse(model: Any, strategy: str, gradient_dtype: torch.dtype | None) -> None:
    if not isinstance(model, nn.Module):
        raise TargetError(f"distribute takes a torch.nn.Module, and this is {model!r}")
    if strategy not in ("auto", "ddp", "fsdp"):
        raise DistributedError(f"there is no strategy {strategy!r}: 'auto', 'ddp' or 'fsdp'")
    if gradient_dtype not in (None, torch.bfloat16, torch.float32):
        raise DistributedError(
            f"gradients cannot be sent in {gradient_dtype}: torch.bfloat16 has the range of float32, and float16 would "
            "overflow where they are scaled or added up"
        )
    if is_distributed(model):
        raise TargetError(
            f"this {type(model).__name__} is distributed already: give distribute() the plain model, once"
        )
