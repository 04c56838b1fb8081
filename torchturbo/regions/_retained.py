"""The gradients of tensors that are no leaves, which `retain_grad` and ``backward(inputs=...)`` keep: true too."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.regions._here import thread

_known: dict[int, weakref.ref[Tensor]] = {}
"""The tensors that keep their gradient since some thread scales, by identity."""


@untraced
def _retain_grad(self: Tensor) -> None:
    torch._C.TensorBase.retain_grad(self)
    if thread.here.scaler is not None and not self.is_leaf:
        _known[id(self)] = weakref.ref(self)


def watch() -> None:
    """Begins to notice calls of `Tensor.retain_grad`."""
    torch.Tensor.retain_grad = _retain_grad  # type: ignore[method-assign,assignment]


def unwatch() -> None:
    """Ends that."""
    if vars(torch.Tensor).get("retain_grad") is _retain_grad:
        del torch.Tensor.retain_grad
    _known.clear()


class Retained:
    """The gradients that tensors which are no leaves have before a backward, put aside while it runs.

    In their own dtype: small gradients of half precision activations can become zero when they are divided.

    Args:
        tensors: the tensors.

    Attributes:
        taken: their identities.
    """

    __slots__ = ("_before", "_tensors", "taken")

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self.taken = {id(tensor) for tensor in tensors}
        self._before: list[Tensor | None] = []

    @classmethod
    def of(cls, inputs: Iterable[Any], taken: set[int]) -> Retained | None:
        """Those of one backward, or None where there are none.

        Args:
            inputs: what backward was asked to write to; empty for all leaves.
            taken: the tensors that are seen to already, by identity.
        """
        if not inputs and not _known:
            return None
        tensors = {id(each): each for each in inputs if isinstance(each, Tensor) and not each.is_leaf}
        for key, reference in list(_known.items()):
            tensor = reference()
            if tensor is None:
                _known.pop(key, None)
            else:
                tensors[key] = tensor
        return cls([tensor for key, tensor in tensors.items() if key not in taken])

    def put_aside(self) -> None:
        """Leaves the tensors without a gradient."""
        for tensor in self._tensors:
            self._before.append(_grad(tensor))
            tensor.grad = None

    def put_back(self, scale: float, create: bool) -> None:
        """Adds what backward has written, divided, to what was there.

        Args:
            scale: what to divide by.
            create: whether the gradients are to be differentiated further.
        """
        with torch.set_grad_enabled(create):
            for tensor, before in zip(self._tensors, self._before, strict=False):
                new = _grad(tensor)
                if new is not None:
                    new = new * (1.0 / scale)
                tensor.grad = before if new is None else new if before is None else before + new


def _grad(tensor: Tensor) -> Tensor | None:
    if tensor.retains_grad:
        return tensor.grad
    with warnings.catch_warnings():
        # torch warns where a tensor that is no leaf has none.
        warnings.simplefilter("ignore")
        return tensor.grad
