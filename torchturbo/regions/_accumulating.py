"""Gradients accumulated over several micro-batches, under a loop that steps after each.

The loop goes on as it is: it clears gradients, calls backward, clips, steps. But each backward divides by the number of
micro-batches and begins with the sum so far, and all steps but the last of a window do not happen. What a backward has
left is kept apart, so that clipping on the way changes nothing: what is clipped and stepped with, in the last one, is
what a loop written by hand would have.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchturbo.errors import AccumulationError, AccumulationWarning
from torchturbo.regions._finite import values_of


class _Sum:
    """A leaf's gradient in a window.

    Attributes:
        leaf: whose it is.
        so_far: the sum at the last step that did not happen; None before it.
        newest: the sum after the newest backward; None once it is in `so_far`.
        ready: the gradient that the last step was called with, clipped or not, and the version it had.
        owner: the optimizer that steps with it, if it is known.
    """

    __slots__ = ("leaf", "newest", "owner", "ready", "so_far")

    def __init__(self, leaf: Tensor, known: dict[int, _Sum]) -> None:
        # Backward comes to leaves that nobody steps with, inputs and those that a checkpoint makes.
        key = id(leaf)
        self.leaf = weakref.ref(leaf, lambda _: known.pop(key, None))
        self.so_far: Tensor | None = None
        self.newest: Tensor | None = None
        self.ready: tuple[Tensor, int] | None = None
        self.owner: _Owner | None = None


class _Owner:
    """An optimizer in a window.

    Attributes:
        optimizer: itself, for as long as the block is open.
        waiting: its steps in this window that did not happen.
        stepped: its steps that did.
        call: what the last step was called with.
        sums: of its parameters.
    """

    __slots__ = ("call", "optimizer", "stepped", "sums", "waiting")

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.waiting = self.stepped = 0
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self.sums: list[_Sum] = []


class Accumulation:
    """The accumulation of one entry of a block.

    Args:
        every: the micro-batches of a window.
    """

    __slots__ = ("_copies", "_flushing", "_of_leaf", "_owners", "_schedulers", "_seen", "every")

    def __init__(self, every: int) -> None:
        self.every = every
        self._of_leaf: dict[int, _Sum] = {}
        self._owners: dict[int, _Owner] = {}
        # Schedulers whose step did not happen, with the call; and how often their optimizer had stepped at the last.
        self._schedulers: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}
        self._seen: dict[int, int] = {}
        self._flushing = False
        # Whether the loop clears gradients in place, so that those of a step have to be copied.
        self._copies = False

    @property
    def is_last_micro_step(self) -> bool:
        """Whether the next step happens."""
        return self.every == 1 or any(owner.waiting == self.every - 1 for owner in self._owners.values())

    # ------------------------------------------------------------------------------------------------------- backward

    def _sum(self, leaf: Tensor) -> _Sum:
        known = self._of_leaf.get(id(leaf))
        if known is None or known.leaf() is not leaf:
            known = self._of_leaf[id(leaf)] = _Sum(leaf, self._of_leaf)
        return known

    def begin(self, leaves: Mapping[int, Tensor]) -> None:
        """Puts the sums so far where a backward adds to them; those too that it does not come to, for who clips.

        Args:
            leaves: what the backward writes to, by identity.
        """
        sums = {id(each): each for leaf in leaves.values() for each in self._with_its_owners(leaf)}
        for each in sums.values():
            leaf = each.leaf()
            if leaf is None or each.so_far is None:
                continue
            if leaf.grad is not None and not values_of(leaf.grad).any():
                self._copies = True
                leaf.grad = None
            if leaf.grad is None:
                leaf.grad = each.so_far.clone()

    def _with_its_owners(self, leaf: Tensor) -> Iterable[_Sum]:
        own = self._sum(leaf)
        return (own,) if own.owner is None else own.owner.sums

    def end(self, leaves: Iterable[Tensor]) -> None:
        """Keeps what a backward has left, before the loop clips it.

        Args:
            leaves: what it wrote to.
        """
        for leaf in leaves:
            own = self._sum(leaf)
            if leaf.grad is not None and not (own.owner and own.owner.waiting == self.every - 1):
                own.newest = leaf.grad.detach().clone()

    # ----------------------------------------------------------------------------------------------------------- steps

    def happens(self, optimizer: Any, leaves: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step that is called happens; if it does not, the sums are kept for the one that does.

        Args:
            optimizer: the optimizer.
            leaves: its parameters.
            args: what the step is called with, without the optimizer.
            kwargs: what it is called with by name.

        Raises:
            AccumulationError: it is called with a closure, which would be evaluated on one micro-batch alone.
        """
        if self._flushing:
            return True
        if callable(args[0] if args else kwargs.get("closure")):
            raise AccumulationError(
                f"accumulate={self.every}: {type(optimizer).__name__}.step is called with a closure, which computes "
                "the gradients of one batch by itself: loop over the micro-batches in the closure, without accumulate="
            )
        owner = self._owners.get(id(optimizer))
        if owner is None:
            owner = self._owners[id(optimizer)] = _Owner(optimizer)
        owner.sums = [self._sum(leaf) for leaf in leaves]
        if owner.waiting == self.every - 1:
            self._happened(owner)
            return True
        in_backward = torch._C._current_graph_task_id() != -1
        for own, leaf in zip(owner.sums, leaves, strict=True):
            own.owner = owner
            grad = leaf.grad
            if grad is None:
                own.newest = None
                continue
            if in_backward:
                own.newest = grad.detach().clone()
            if own.newest is not None:
                own.so_far, own.newest = own.newest, None
                kept = grad.detach().clone() if self._copies else grad
                own.ready = kept, kept._version
        owner.waiting += 1
        owner.call = args, kwargs
        return False

    def _happened(self, owner: _Owner) -> None:
        owner.waiting = 0
        owner.stepped += 1
        for own in owner.sums:
            own.owner = owner
            own.so_far = own.newest = own.ready = None

    # ------------------------------------------------------------------------------------------------------ schedulers

    def schedules(self, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step of a scheduler happens: where its optimizer has stepped since the last one.

        Args:
            scheduler: the scheduler.
            args: what it is called with, without the scheduler.
            kwargs: what it is called with by name.
        """
        owner = self._owners.get(id(getattr(scheduler, "optimizer", None)))
        if self._flushing or owner is None:
            return True
        if owner.waiting and owner.stepped <= self._seen.get(id(scheduler), 0):
            self._schedulers[id(scheduler)] = scheduler, args, kwargs
            return False
        self._schedulers.pop(id(scheduler), None)
        self._seen[id(scheduler)] = owner.stepped
        return True

    # ----------------------------------------------------------------------------------------------------------- flush

    def flush(self) -> None:
        """Takes the steps that wait for the rest of their window, with what has come so far."""
        waiting = [owner for owner in self._owners.values() if owner.waiting]
        if waiting and not any(owner.stepped for owner in self._owners.values()):
            warnings.warn(
                f"accumulate={self.every}: the block ends after {max(owner.waiting for owner in waiting)} of "
                f"{self.every} micro-batches, and none has had all: put it around the loop, not around one step",
                AccumulationWarning,
                stacklevel=2,
            )
        self._flushing = True
        try:
            for owner in waiting:
                self._flush(owner)
            for scheduler, args, kwargs in list(self._schedulers.values()):
                scheduler.step(*args, **kwargs)
        finally:
            self._schedulers.clear()
            self._flushing = False

    def _flush(self, owner: _Owner) -> None:
        visible: list[tuple[Tensor, Tensor | None]] = []
        for own in owner.sums:
            leaf = own.leaf()
            if leaf is None:
                continue
            visible.append((leaf, leaf.grad))
            if own.ready is None:
                leaf.grad = own.so_far
            else:
                ready, version = own.ready
                leaf.grad = ready if ready._version == version else own.so_far
        args, kwargs = owner.call
        try:
            owner.optimizer.step(*args, **kwargs)
        finally:
            for leaf, grad in visible:
                leaf.grad = grad
            self._happened(owner)
