"""A call of a module that can be made twice: what it is called with, taken apart and put together again."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from torchturbo._dynamo import untraced
from torchturbo.regions._calls import Args, Kwargs

_DATA = (
    bool, int, float, complex, str, bytes, type(None), type, slice, enum.Enum, FunctionType, BuiltinFunctionType,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
"""What a call can be given that no forward can change."""


def cannot_be_given(args: Args, kwargs: Kwargs) -> str | None:
    """Why a module that is called with these cannot be computed again, or None."""
    for leaf in _pytree.tree_leaves((args, kwargs)):
        if not isinstance(leaf, Tensor) and not isinstance(leaf, _DATA):
            return f"it is called with a {type(leaf).__name__}, which a second forward might change again"
    return None


class Call:
    """A call of a module that can be made twice.

    Args:
        block: the module.
        call: calls it.
        args: what it is called with.
        kwargs: what it is called with by name.

    Attributes:
        tensors: those that it is called with.
    """

    def __init__(self, block: nn.Module, call: Callable[..., Any], args: Args, kwargs: Kwargs) -> None:
        self._block: nn.Module | None = block
        self._call: Callable[..., Any] | None = call
        # The containers of the caller, which it may look into afterwards, are for the first forward alone.
        self._first: tuple[Args, Kwargs] | None = (args, kwargs)
        leaves, self._structure = _pytree.tree_flatten((args, kwargs))
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors: list[Tensor] = [leaves[place] for place in self._places]
        self._rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    @untraced
    def run(self, *given: Tensor) -> Any:
        """Makes it.

        Args:
            given: the tensors.
        """
        assert self._call is not None
        if self._first is not None:
            (args, kwargs), self._first = self._first, None
        else:
            again = list(self._rest)
            for place, tensor in zip(self._places, given, strict=True):
                again[place] = tensor
            args, kwargs = _pytree.tree_unflatten(again, self._structure)
        return self._call(*args, **kwargs)

    def ended(self, *, again: bool) -> None:
        """Says that the first forward has ended. A graph that needs no second one must not hold the module.

        Args:
            again: whether there may be a second one.
        """
        self._first = None
        if not again:
            self._block = self._call = None
            self._rest = []

    @property
    def block(self) -> nn.Module:
        """The module."""
        assert self._block is not None
        return self._block
