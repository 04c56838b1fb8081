"""A step of training, by copies of what it is given: of a size and without memory, or real ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from torchturbo.errors import TargetError


@dataclass(frozen=True, slots=True)
class Like:
    """A tensor's form, which stands for it where nobody is to hold its memory."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        """That of a tensor."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def made(self, mode: FakeTensorMode) -> Tensor:
        """A tensor of this form, without memory."""
        with mode:
            return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class Call:
    """What a model is called with, by position and by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HOOKS_OF_STEPS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class Step:
    """Copies of a model, its optimizer and a batch, and steps by them.

    Args:
        model: the model.
        batch: what it is called with.
        opt: its optimizer, or None.
        loss: makes the loss, or None.
        mode: the mode whose tensors have no memory; None for real copies.

    Attributes:
        model: the copy.
        batch: the copy.
        opt: the copy.
        had_hooks: whether hooks are left out, which may do what no copy undoes.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        opt: Optimizer | None,
        loss: Callable[..., Any] | None,
        mode: FakeTensorMode | None,
    ) -> None:
        self.batch, self._inputs = copied(batch, mode)
        if mode is None:
            self.model, self.opt = copy.deepcopy((model, opt))
        else:
            with FakeCopyMode(mode):
                self.model, self.opt = copy.deepcopy((model, opt), self._off_meta(model, mode))
            if self.opt is not None:
                # It counts its steps in tensors, which it looks at; those that it makes itself are known.
                self.opt.state.clear()
        self._loss = loss
        self.had_hooks = False
        for module in self.model.modules():
            for name in _HOOKS:
                self.had_hooks |= bool(vars(module)[name])
                vars(module)[name].clear()
            module.zero_grad()
        if self.opt is not None:
            # Schedulers leave the optimizer's own step with a wrapper on it, of which there is no copy.
            for name in ("step", "zero_grad"):
                vars(self.opt).pop(name, None)
            for name in _HOOKS_OF_STEPS:
                vars(self.opt)[name].clear()

    def _off_meta(self, model: nn.Module, mode: FakeTensorMode) -> dict[int, Any]:
        """What stands in the copy for the tensors of a model on the meta device: the like, on the batch's device."""
        device = next((its.device for its in self.inputs()), torch.device("cpu"))
        found: dict[int, Any] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "meta":
                with mode:
                    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
                is_parameter = isinstance(tensor, nn.Parameter)
                found[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if is_parameter else made
        return found

    def tensors(self) -> Iterator[Tensor]:
        """Parameters and buffers."""
        yield from self.model.parameters()
        yield from self.model.buffers()

    def gradients(self) -> list[Tensor]:
        """Those that are there."""
        return [each.grad for each in self.model.parameters() if each.grad is not None]

    def states(self) -> list[Tensor]:
        """The optimizer's state."""
        return [] if self.opt is None else [its for its in tree_leaves(dict(self.opt.state)) if isinstance(its, Tensor)]

    def inputs(self) -> list[Tensor]:
        """Tensors of the batch."""
        return self._inputs

    def backward(self, loss: Tensor) -> None:
        """Leaves gradients in the copy alone: a loss may have weights of its own, of which there is none."""
        loss.backward(inputs=[each for each in self.model.parameters() if each.requires_grad])  # type: ignore[no-untyped-call]

    def forward(self) -> Tensor:
        """The loss.

        Raises:
            TargetError: there is none.
        """
        given: Any = self.batch
        targets: tuple[Any, ...] = ()
        if self._loss is not None and isinstance(given, tuple | list) and len(given) == 2:
            given, targets = given[0], (given[1],)
        if isinstance(given, Call):
            outputs = self.model(*given.args, **given.kwargs)
        elif isinstance(given, Mapping):
            outputs = self.model(**given)
        elif isinstance(given, tuple | list):
            outputs = self.model(*given)
        else:
            outputs = self.model(given)
        loss = _loss_in(outputs) if self._loss is None else self._loss(outputs, *targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            made = "the model returns" if self._loss is None else "loss= makes"
            raise TargetError(
                f"memory_plan needs a loss, one number with gradients, and {made} {_told(loss)}: give loss=, which "
                "makes it of the model's outputs, and of the targets where the batch is a pair (inputs, targets)"
            )
        return loss


def copied(batch: Any, mode: FakeTensorMode | None) -> tuple[Any, list[Tensor]]:
    """A copy of a batch, whatever it is made of, and the tensors in that.

    Args:
        batch: any, or a `Call`.
        mode: the mode whose tensors have no memory; None for real copies.
    """
    if isinstance(batch, Call) and mode is not None:
        call = tree_map(lambda its: its.made(mode) if isinstance(its, Like) else its, (batch.args, batch.kwargs))
        return Call(*call), [each for each in tree_leaves(call) if isinstance(each, Tensor)]
    made: dict[int, Any] = {}
    with nullcontext() if mode is None else FakeCopyMode(mode):
        its = copy.deepcopy(batch, made)
    return its, [each for each in made.values() if isinstance(each, Tensor)]


def _loss_in(outputs: Any) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get("loss", outputs)
    found = getattr(outputs, "loss", None)
    return outputs if found is None else found


def _told(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
