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
from torchturbo.regions._here import thread


class _Sum:
    """A leaf's gradient in a window.

    Attributes:
        leaf: whose it is.
        so_far: the sum at the last step that did not happen; None before it.
        newest: the sum after the newest backward; None once it is in `so_far`.
        ready: the gradient that the last step was called with, clipped or not, and the version it had.
        copies: whether that has to be a copy, because the loop clears gradients in place, or writes to them uncleared.
        owner: the optimizer that steps with it, if it is known.
    """

    __slots__ = ("copies", "leaf", "newest", "owner", "ready", "so_far")

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = weakref.ref(leaf)
        self.so_far: Tensor | None = None
        self.newest: Tensor | None = None
        self.ready: tuple[Tensor, int] | None = None
        # What the loop does with gradients after a step is seen at the next backward.
        self.copies = True
        self.owner: _Owner | None = None

    def ready_with(self, grad: Tensor) -> None:
        """Notes the gradient that a step was called with."""
        kept = grad.detach().clone() if self.copies else grad
        self.ready = kept, kept._version

    def written_to(self, grad: Tensor) -> None:
        """Keeps what a step was called with from a backward that adds to the gradient that stands, for another one."""
        if self.ready is not None and self.ready[0] is grad and self.ready[1] == grad._version:
            self.copies = True
            self.ready_with(grad)


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

    __slots__ = ("_flushing", "_of_leaf", "_owners", "_schedulers", "_seen", "every")

    def __init__(self, every: int) -> None:
        self.every = every
        self._of_leaf: dict[int, _Sum] = {}
        self._owners: dict[int, _Owner] = {}
        # Schedulers whose step did not happen, with the call; and how often their optimizer had stepped at the last.
        self._schedulers: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}
        self._seen: dict[int, int] = {}
        self._flushing = False

    @property
    def is_last_micro_step(self) -> bool:
        """Whether the next step happens."""
        return self.every == 1 or any(owner.waiting == self.every - 1 for owner in self._owners.values())

    def share_of(self, grad: Tensor) -> Tensor:
        """What a micro-batch's backward begins with, instead of what it was given."""
        return grad / self.every

    def waiting(self) -> list[_Owner]:
        """The optimizers whose steps wait for more micro-batches."""
        return [owner for owner in self._owners.values() if owner.waiting]

    # ------------------------------------------------------------------------------------------------------- backward

    def _sum(self, leaf: Tensor) -> _Sum:
        known = self._of_leaf.get(id(leaf))
        if known is None or known.leaf() is not leaf:
            known = self._of_leaf[id(leaf)] = _Sum(leaf)
        return known

    def begin(self, leaves: Mapping[int, Tensor]) -> None:
        """Puts the sums so far where a backward adds to them; those too that it does not come to, for who clips.

        Args:
            leaves: what the backward writes to, by identity.
        """
        sums = {id(each): each for leaf in leaves.values() for each in self._with_its_owners(leaf)}
        for each in sums.values():
            leaf = each.leaf()
            if leaf is None or (each.so_far is None and each.newest is None):
                continue
            grad = leaf.grad
            if grad is not None and values_of(grad).any():
                each.written_to(grad)
                continue
            each.copies = grad is not None
            # What a backward has left that was cleared before a step is not part of the sum.
            each.newest = each.so_far
            if each.so_far is not None:
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
            if leaf.grad is not None:
                # The last one of a window is not kept for another.
                last = own.owner is not None and own.owner.waiting == self.every - 1
                own.newest = leaf.grad if last else leaf.grad.detach().clone()

    # ----------------------------------------------------------------------------------------------------------- steps

    def happens(self, optimizer: Any, leaves: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step that is called happens; if it does not, the sums are kept for the one that does.

        Args:
            optimizer: the optimizer.
            leaves: its parameters.
            args: what the step is called with, without the optimizer.
            kwargs: what it is called with by name.

        Raises:
            AccumulationError: it is called with a closure, which would be evaluated on one micro-batch alone; or with
                gradients that no backward has left, and which so have not been added up.
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
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward and all(own.newest is None and own.owner in (None, owner) for own in owner.sums):
            self._refuse_foreign(optimizer, leaves)
        if owner.waiting == self.every - 1:
            self._happened(owner)
            return True
        for own, leaf in zip(owner.sums, leaves, strict=True):
            own.owner = owner
            grad = leaf.grad
            if grad is None:
                own.newest = None
                continue
            if in_backward:
                own.newest = grad.detach().clone()
            elif own.newest is own.so_far is None:
                # Cleared in place, and no backward has come to it; whatever stands there now, clipping has made of it.
                own.newest = torch.zeros_like(grad.detach())
            if own.newest is not None:
                own.so_far, own.newest = own.newest, None
                own.ready_with(grad)
        owner.waiting += 1
        owner.call = args, kwargs
        return False

    def _refuse_foreign(self, optimizer: Any, leaves: list[Tensor]) -> None:
        grads = [values_of(leaf.grad.detach()) for leaf in leaves if leaf.grad is not None]
        # Clipping makes nan of zeros, where another gradient is not finite.
        if any(bool((grad.isfinite() & (grad != 0)).any()) for grad in grads):
            raise AccumulationError(
                f"accumulate={self.every}: {type(optimizer).__name__}.step is called with gradients that no backward "
                "in the block has left in its parameters since its last step (they come from torch.autograd.grad, from "
                "other tensors or from before the block, or are stepped with again), and which so do not add up: call "
                "backward once for each step, on what the optimizer steps with, or accumulate by hand"
            )

    def _happened(self, owner: _Owner) -> None:
        owner.waiting = 0
        owner.stepped += 1
        for own in owner.sums:
            own.owner = owner
            own.so_far = own.newest = own.ready = None
        # Inputs whose gradients are asked for are leaves too.
        self._of_leaf = {key: each for key, each in self._of_leaf.items() if each.leaf() is not None}

    # ------------------------------------------------------------------------------------------------------ schedulers

    def schedules(self, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step of a scheduler happens: where its optimizer has stepped since the last one.

        Args:
            scheduler: the scheduler.
            args: what it is called with, without the scheduler.
            kwargs: what it is called with by name.
        """
        if (owner := self._owner_of(scheduler)) is None:
            return True
        if owner.waiting and owner.stepped <= self._seen.get(id(scheduler), 0) and not self._flushing:
            self._schedulers[id(scheduler)] = scheduler, args, kwargs
            return False
        self._schedulers.pop(id(scheduler), None)
        self._seen[id(scheduler)] = owner.stepped
        return True

    def made(self, scheduler: Any) -> None:
        """Notes a scheduler that is made in the block, which waits for the steps from then on.

        Args:
            scheduler: the scheduler.
        """
        if (owner := self._owner_of(scheduler)) is not None:
            self._seen[id(scheduler)] = owner.stepped

    def _owner_of(self, scheduler: Any) -> _Owner | None:
        return self._owners.get(id(getattr(scheduler, "optimizer", None)))

    # ----------------------------------------------------------------------------------------------------------- flush

    def flush(self) -> None:
        """Takes the steps that wait for the rest of their window, with what has come so far."""
        waiting = self.waiting()
        if waiting and not any(owner.stepped for owner in self._owners.values()):
            warnings.warn(
                f"accumulate={self.every}: the block ends after {max(owner.waiting for owner in waiting)} of "
                f"{self.every} micro-batches, and none has had all: put it around the loop, not around one step",
                AccumulationWarning,
                stacklevel=2,
            )
        here = thread.here
        # An inner block may accumulate too, and would have these steps wait.
        inner, here.accumulating, self._flushing = here.accumulating, self, True
        try:
            for owner in waiting:
                self._flush(owner)
            for scheduler, args, kwargs in list(self._schedulers.values()):
                scheduler.step(*args, **kwargs)
        finally:
            self._schedulers.clear()
            here.accumulating, self._flushing = inner, False

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
