"""Gradients accumulated over several micro-batches, under a loop that steps after each.

The loop goes on as it is: it clears gradients, calls backward, clips, steps. But each backward divides by the number of
micro-batches and begins with the sum so far, and all steps but the last of a window do not happen. What a backward has
left is kept apart, so that clipping on the way changes nothing: what is clipped and stepped with, in the last one, is
what a loop written by hand would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchturbo.errors import AccumulationError, AccumulationWarning
from torchturbo.regions._finite import values_of
from torchturbo.regions._here import thread
from torchturbo.regions._reducing import Reductions
from torchturbo.regions._sums import Owner, Sum


class Accumulation:
    """The accumulation of one entry of a block.

    Args:
        every: the micro-batches of a window.

    Attributes:
        reductions: what is reduced between processes, and what is not yet.
    """

    __slots__ = ("_flushing", "_of_leaf", "_owners", "_schedulers", "_seen", "every", "reductions")

    def __init__(self, every: int) -> None:
        self.every = every
        self._of_leaf: dict[int, Sum] = {}
        self._owners: dict[int, Owner] = {}
        # Schedulers whose step did not happen, with the call; and how often their optimizer had stepped at the last.
        self._schedulers: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}
        self._seen: dict[int, int] = {}
        self._flushing = False
        self.reductions = Reductions()

    @property
    def is_last_micro_step(self) -> bool:
        """Whether the next step happens."""
        return self.every == 1 or any(owner.waiting == self.every - 1 for owner in self._owners.values())

    def share_of(self, grad: Tensor) -> Tensor:
        """What a micro-batch's backward begins with, instead of what it was given."""
        return grad / self.every

    def comes(self, leaves: Iterable[Tensor]) -> bool:
        """Whether the next step of the optimizers that have some parameters happens; True where none is known.

        Args:
            leaves: the parameters.
        """
        owners = [its.owner for leaf in leaves if (its := self._of_leaf.get(id(leaf))) and its.owner is not None]
        return not owners or any(owner.waiting == self.every - 1 for owner in owners)

    def waiting(self) -> list[Owner]:
        """The optimizers whose steps wait for more micro-batches."""
        return [owner for owner in self._owners.values() if owner.waiting]

    # ------------------------------------------------------------------------------------------------------- backward

    def _sum(self, leaf: Tensor) -> Sum:
        known = self._of_leaf.get(id(leaf))
        if known is None or known.leaf() is not leaf:
            known = self._of_leaf[id(leaf)] = Sum(leaf)
        return known

    def begin(self, leaves: Mapping[int, Tensor]) -> None:
        """Puts the sums so far where a backward adds to them; those too that it does not come to, for who clips.

        Args:
            leaves: what the backward writes to, by identity.
        """
        self.reductions.begin(self.comes)
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

    def _with_its_owners(self, leaf: Tensor) -> Iterable[Sum]:
        own = self._sum(leaf)
        return (own,) if own.owner is None else own.owner.sums

    def end(self, leaves: list[Tensor]) -> None:
        """Keeps what a backward has left, before the loop clips it.

        Args:
            leaves: what it wrote to.
        """
        self.reductions.end(leaves)
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
            owner = self._owners[id(optimizer)] = Owner(optimizer)
        owner.sums = [self._sum(leaf) for leaf in leaves]
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward and all(own.newest is None and own.owner in (None, owner) for own in owner.sums):
            self._refuse_foreign(optimizer, leaves)
        if owner.waiting == self.every - 1:
            if self.reductions.are_local(leaves):
                self.reductions.reduce(leaves)
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

    def _happened(self, owner: Owner) -> None:
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

    def _owner_of(self, scheduler: Any) -> Owner | None:
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

    def _flush(self, owner: Owner) -> None:
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
        leaves = [leaf for leaf, _ in visible]
        if self.reductions.are_local(leaves):
            self._tell_of_what_was_changed(owner)
            self.reductions.reduce(leaves)
        args, kwargs = owner.call
        try:
            owner.optimizer.step(*args, **kwargs)
        finally:
            for leaf, grad in visible:
                leaf.grad = grad
            self._happened(owner)

    def _tell_of_what_was_changed(self, owner: Owner) -> None:
        if self.reductions.are_unseen:
            warnings.warn(
                f"accumulate={self.every}: the step of the last {owner.waiting} micro-batches is taken at the end of "
                "the block, with sums that the loop has not seen (whole_sums=True), and so has not clipped: have the "
                "number of batches be a multiple of accumulate",
                AccumulationWarning,
                stacklevel=2,
            )
        if any(own.ready is not None and _differ(own.ready[0], own.so_far) for own in owner.sums):
            warnings.warn(
                f"accumulate={self.every}: the last {owner.waiting} micro-batches are averaged over the ranks at the "
                "end of the block, after the loop has changed (clipped) the gradients of each rank by itself: have the "
                "number of batches be a multiple of accumulate, where all are reduced before they are clipped",
                AccumulationWarning,
                stacklevel=2,
            )


def _differ(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and not torch.equal(values_of(one.detach()), values_of(other.detach()))
