"""The gradient of a leaf, and the steps of an optimizer, in a window of micro-batches."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class Sum:
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
        self.owner: Owner | None = None

    def ready_with(self, grad: Tensor) -> None:
        """Notes the gradient that a step was called with."""
        kept = grad.detach().clone() if self.copies else grad
        self.ready = kept, kept._version

    def written_to(self, grad: Tensor) -> None:
        """Keeps what a step was called with from a backward that adds to the gradient that stands, for another one."""
        if self.ready is not None and self.ready[0] is grad and self.ready[1] == grad._version:
            self.copies = True
            self.ready_with(grad)


class Owner:
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
        self.sums: list[Sum] = []
