"""Where the memory of a step of training goes, before and after each switch that saves some, without taking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torchturbo._memory.data import MemoryPlan, MemoryUse

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["MemoryPlan", "MemoryUse", "memory_plan"]


def memory_plan(
    model: nn.Module,
    batch: Any,
    opt: Optimizer | None = None,
    *,
    loss: Callable[..., Any] | None = None,
) -> MemoryPlan:
    """Says what weights, gradients, optimizer and activations take in a step, and what each switch makes of that.

    The step is taken by copies whose tensors have sizes and no memory (torch's FakeTensorMode), so it answers for
    models that do not fit, also for those that were made on the meta device. Where such copies cannot be used, as where
    code looks at numbers, real copies are, and a note says so. Neither is anything of yours: weights, gradients,
    buffers, optimizer and random numbers are what they were.

    Args:
        model: the model, in the mode that it is to be trained in.
        batch: what it is called with: a mapping by name, a tuple or list in order, anything else as one argument. With
            `loss` a pair is (inputs, targets).
        opt: its optimizer; None for none.
        loss: makes the loss of the outputs, and of the targets where `batch` is a pair; None where the model returns
            it, as ``outputs.loss``, ``outputs["loss"]`` or the outputs themselves.

    Raises:
        TargetError: the model does not return a loss, or the step cannot be taken.
        RanksError: ranks share the model (DistributedDataParallel, FSDP2): give it the plain one.

    >>> import torch
    >>> from torchturbo import memory_plan
    >>> model = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()) for _ in range(8)))
    >>> plan = memory_plan(model, torch.ones(512, 64), torch.optim.Adam(model.parameters()), loss=torch.mean)
    >>> plan["now"].weights, plan["now"].optimizer
    (133120, 266304)
    """
    # What it needs is loaded when it is needed.
    from torchturbo._memory.measure import measure

    return measure(model, batch, opt, loss)
