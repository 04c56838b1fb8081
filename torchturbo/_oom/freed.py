"""What switches would have freed in a step that ran out of memory: counted by copies without memory, where it can be.

What the model was called with stands in the frames of an error that came in forward. Elsewhere what the step is called
with is tried as what the model may be called with.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from torchturbo._catalogue import SETTINGS
from torchturbo._oom.batch import Batch
from torchturbo._oom.before import Before
from torchturbo._program import program_of
from torchturbo._turbo import turbo
from torchturbo.errors import RestoreError
from torchturbo.regions._twice import cannot_be_given

SECONDS = 10.0
"""After which counting is given up."""
_WRITTEN = {"checkpoint": "checkpoint=True", "autocast": "autocast='bf16'"}
_CALLERS = (
    os.path.join(os.path.dirname(torch.__file__), ""),
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ""),
)


@dataclass(frozen=True, slots=True)
class Called:
    """A model and what it was called with, or may be, without the memory of that.

    Attributes:
        model: the model.
        calls: each a tuple and a dictionary of arguments, in the order to try them.
        optimizer: that steps with its weights, or None.
    """

    model: nn.Module
    calls: tuple[Any, ...]
    optimizer: Optimizer | None


@dataclass(frozen=True, slots=True)
class Freed:
    """What switches would have freed.

    Attributes:
        bytes: of each switch that frees any, as it is written, most first.
        peak: the most at once in the step as it was.
        activations: what forward leaves, as it was.
        model: the model's class.
    """

    bytes: Mapping[str, int]
    peak: int
    activations: int
    model: str


class Once:
    """What switches would have freed in a step, counted once for all its calls, since that may take seconds.

    Args:
        around: the block that the step runs in.

    Attributes:
        found: what was counted; None before that, and where it cannot be.
    """

    def __init__(self, around: turbo) -> None:
        self.found: Freed | None = None
        self._around = around
        self._tried = False

    def counted(self, called: Called | None, before: Before) -> Freed | None:
        """What was counted.

        Args:
            called: the model and what it was called with, where that is known.
            before: puts back what counting has done.
        """
        # What is not put back after several steps would be put back here.
        if called is not None and not self._tried and not before.many:
            self._tried = True
            try:
                self.found = freed(called, self._around)
            finally:
                with suppress(RestoreError):
                    before.put_back()
        return self.found


def called_in(error: BaseException, before: Before, batch: Batch | None) -> Called | None:
    """What a step that ran out of memory has called, or None where nobody knows.

    Args:
        error: with its traceback.
        before: what the step reaches.
        batch: what it is called with.
    """
    with suppress(Exception):
        weights, optimizers = before.found()
        needed = sum(each.nbytes for each in weights) / 2
        for module, args, kwargs in _calls(error.__traceback__):
            if _size(module) >= needed and cannot_be_given(args, kwargs) is None:
                return Called(module, (_formed((args, kwargs)),), _stepping(module, optimizers))
        models = [each for each in before.models() if _size(each) >= needed]
        if batch is not None and models:
            model = max(models, key=_size)
            calls = tuple(_formed(each) for each in _tries(batch) if cannot_be_given(*each) is None)
            return Called(model, calls, _stepping(model, optimizers))
    return None


def freed(called: Called, around: turbo) -> Freed | None:
    """What switches would have freed there, or None where it cannot be counted.

    Args:
        called: the model and what it is called with.
        around: the block that the step runs in.
    """
    # What it needs is loaded when it is needed, and what loads it anew is no reason to fail.
    with suppress(Exception):
        from torchturbo._memory.measure import estimate
        from torchturbo._memory.step import Call

        for args, kwargs in called.calls:
            with suppress(Exception):
                rows = estimate(
                    called.model, Call(args, kwargs), called.optimizer, _some_loss, in_block(around), _WRITTEN, SECONDS
                )
                now = rows.pop("now")
                saved = {_WRITTEN[name]: now.peak - its.peak for name, its in rows.items() if not its.refused}
                # What is in force already saves nothing more.
                most = dict(sorted(saved.items(), key=lambda its: -its[1]))
                worth = {name: size for name, size in most.items() if size > now.peak / 100}
                return Freed(worth, now.peak, now.activations, type(called.model).__name__)
    return None


def in_block(around: turbo) -> dict[str, object]:
    """What a block puts in force, by option.

    Args:
        around: the block.
    """
    decisions = program_of(around._profile, around._overrides, strict=False).plan.decisions
    return {its.name: its.value for its in decisions if its.refused is None and its.value is not None}


def now_in(around: turbo, name: str) -> object:
    """What an option is within a block, which has what it says nothing of from those around it in this thread.

    Args:
        around: the block, which is not open.
        name: of the option.
    """
    decisions = program_of(around._profile, around._overrides, strict=False).plan.decisions
    said = [its.value for its in decisions if its.name == name and its.refused is None]
    return said[-1] if said else SETTINGS[name].now()


def _calls(trace: types.TracebackType | None) -> Iterator[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """Calls of modules that an error came through, the outermost first."""
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if frame.f_code.co_filename.startswith(_CALLERS):
            its = frame.f_locals
            module, args, kwargs = its.get("module", its.get("self")), its.get("args"), its.get("kwargs")
            if isinstance(module, nn.Module) and isinstance(args, tuple) and isinstance(kwargs, dict):
                yield module, args, kwargs


def _tries(batch: Batch) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What a model may be called with, of what its step is called with."""
    values = batch.values()
    first = values[0]
    if len(values) > 1:
        yield (first,), {}
        yield tuple(values), {}
    elif isinstance(first, Mapping):
        if all(isinstance(key, str) for key in first):
            yield (), dict(first)
        yield tuple(first.values())[:1], {}
    elif isinstance(first, tuple | list):
        yield tuple(first[:1]), {}
        yield tuple(first), {}
    else:
        yield (first,), {}


def _formed(call: Any) -> Any:
    from torchturbo._memory.step import Like

    return tree_map(lambda its: Like.of(its) if isinstance(its, Tensor) else its, call)


def _some_loss(outputs: Any) -> Any:
    """The model's, or one that stands for the step's own, which is not known."""
    loss = getattr(outputs, "loss", None)
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    found = [its for its in tree_leaves(outputs) if isinstance(its, Tensor) and its.requires_grad]
    return sum(its.mean() for its in found if its.is_floating_point())


def _size(model: nn.Module) -> int:
    return sum(each.nbytes for each in model.parameters() if each.requires_grad)


def _stepping(model: nn.Module, optimizers: list[Optimizer]) -> Optimizer | None:
    its = set(map(id, model.parameters()))
    found = (each for each in optimizers if any(id(p) in its for group in each.param_groups for p in group["params"]))
    return next(found, None)
