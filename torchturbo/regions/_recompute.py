"""A module computed again in backward instead of kept: torch's own checkpoint, and what makes it the same to the bit.

`torch.utils.checkpoint` computes a forward again and trusts that it does the same. Here that is looked at. Until the
forward has ended what it saves is held beside the checkpoint's own: if it has written to anything that a second forward
would read, that is what backward gets, as if there were no checkpoint. And before the second forward what it reads must
be as the first one found it, or backward raises; whether modules train, and what wants gradients, is put back for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.checkpoint import checkpoint

from torchturbo._dynamo import untraced
from torchturbo.regions._calls import Args, Kwargs
from torchturbo.regions._state import State
from torchturbo.regions._twice import Call

_C: Any = torch._C


class _Thread(threading.local):
    """Whether this thread runs a module that is computed again, within which nothing else is."""

    def __init__(self) -> None:
        self.within = False


thread = _Thread()


class _Held:
    """A tensor that forward saves, while it is not known whether it can be computed again.

    Attributes:
        theirs: what the checkpoint has made of it.
        tensor: it; None once it is given up.
        version: how often it had been written to.
    """

    __slots__ = ("tensor", "theirs", "version")

    def __init__(self, theirs: Any, tensor: Tensor) -> None:
        self.theirs = theirs
        self.version = tensor._version
        # The tensor itself would hold its graph, which holds this.
        self.tensor: Tensor | None = tensor.detach()

    def is_as_it_was(self) -> bool:
        """Whether nobody has written to the tensor since."""
        return self.tensor is None or self.tensor._version == self.version


class _Forward:
    """The first forward: what it saves is held until it is known that a second one would do the same.

    Args:
        call: the call of the module.
        leaves: all that stands in what it is called with now.
        kept: is told why something is kept after all.

    Attributes:
        state: what the module reads, as the forward found it; None once it is known that there is no second one.
    """

    def __init__(self, call: Call, leaves: Callable[[], list[Any]], kept: Callable[[str], None]) -> None:
        self.call = call
        self._given = [(tensor, tensor._version) for tensor in call.tensors if not tensor.is_inference()]
        self._leaves, self._before = leaves, leaves()
        self._kept = kept
        self._held: list[_Held] = []
        self.state: State | None = State(call.block)

    def contexts(self) -> tuple[_Forward, _Again]:
        """What is around the first forward and the second."""
        return self, _Again(self)

    def ended(self) -> None:
        """Lets go of what only the first forward needs."""
        self._given, self._before, self._held = [], [], []
        self._leaves, self._kept = list, _tell_nobody
        self.call.tensors = []
        self.call.ended(again=self.state is not None)

    def __enter__(self) -> None:
        pack, unpack = _C._autograd._top_saved_tensors_default_hooks(True)

        def hold(tensor: Tensor) -> _Held:
            held = _Held(pack(tensor), tensor)
            self._held.append(held)
            return held

        def give(held: _Held) -> Tensor:
            if held.tensor is None:
                computed: Tensor = unpack(held.theirs)
                return computed
            if not held.is_as_it_was():
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"[{held.tensor.type()} {list(held.tensor.shape)}] is at version {held.tensor._version}; expected "
                    f"version {held.version} instead"
                )
            return held.tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(hold, give)
        self._hooks.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        held, self._held = self._held, []
        del self._hooks
        reason = self._cannot_be_repeated(held) if error is None else None
        if reason is None:
            for each in held:
                each.tensor = None
        else:
            self._kept(reason)
            self.state = None

    def _cannot_be_repeated(self, held: list[_Held]) -> str | None:
        assert self.state is not None
        changed = self.state.changed()
        if changed is not None:
            return f"its forward changes {changed}"
        now = self._leaves()
        if len(now) != len(self._before) or any(was is not its for was, its in zip(self._before, now, strict=True)):
            return "its forward changes what it is called with"
        if any(tensor._version != version for tensor, version in self._given):
            return "its forward writes to what it is called with"
        if not all(each.is_as_it_was() for each in held):
            return "its forward writes to what it has saved for backward"
        return None


def _tell_nobody(reason: str) -> None:
    pass


class _Again:
    """The second forward, from the state of the first.

    Args:
        forward: the first.
    """

    def __init__(self, forward: _Forward) -> None:
        self._forward = forward
        self._open: list[Any] = []

    def __enter__(self) -> None:
        again = self._again()
        again.__enter__()
        self._open.append(again)

    def __exit__(self, *error: object) -> None:
        # Not handed on: torch ends a second forward by an exception, which is to pass.
        self._open.pop().__exit__(None, None, None)

    @contextmanager
    def _again(self) -> Iterator[None]:
        block, state = self._forward.call.block, self._forward.state
        assert state is not None
        changed = state.changed(later=True)
        if changed is not None:
            name = type(block).__name__
            raise RuntimeError(
                f"checkpoint: {name} is to be computed again for backward, and {changed} has been changed since its "
                "forward: the gradients would be others. Call backward before the change, or leave "
                f"{name} out of checkpoint"
            )
        flags, within = state.flags(), thread.within
        now = [(flag, _flag(flag.of)) for flag in flags]
        buffers = [
            (each._buffers, name, its)
            for each in block.modules()
            for name, its in each._buffers.items()
            if its is not None
        ]
        thread.within = True
        try:
            for flag in flags:
                _put_flag(flag.of, flag.was)
            # Statistics that a forward counts are counted once: what the second one writes is thrown away.
            for of, name, its in buffers:
                of[name] = its.clone()
            yield
        finally:
            for of, name, its in buffers:
                of[name] = its
            for flag, was in now:
                _put_flag(flag.of, was)
            thread.within = within


def _flag(of: nn.Module | Tensor) -> bool:
    return of.requires_grad if isinstance(of, Tensor) else of.training


def _put_flag(of: nn.Module | Tensor, flag: bool) -> None:
    if isinstance(of, Tensor):
        of.requires_grad_(flag)
    else:
        of.training = flag


@untraced
def recomputed(
    block: nn.Module, call: Callable[..., Any], args: Args, kwargs: Kwargs, kept: Callable[[str], None]
) -> Any:
    """Calls a module so that what it saves for backward is computed again there.

    Args:
        block: the module.
        call: calls it.
        args: what it is called with, in which `cannot_be_given` finds nothing.
        kwargs: what it is called with by name.
        kept: is told why it is kept after all.
    """
    twice = Call(block, call, args, kwargs)
    forward = _Forward(twice, partial(_pytree.tree_leaves, (args, kwargs)), kept)
    outer, thread.within = thread.within, True
    try:
        return checkpoint(twice.run, *twice.tensors, use_reentrant=False, context_fn=forward.contexts)
    finally:
        thread.within = outer
        forward.ended()
