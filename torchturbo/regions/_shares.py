"""Gradients accumulated over the parts of one batch, each by its share of the samples, for one step of all of them.

It accumulates as ``accumulate=`` does, with two differences: the parts need not be equal, and a step that would not
come to what it comes to with the whole batch is stopped instead of being taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._here import thread
from torchturbo.regions._sums import Sum

_HALF = torch.float16, torch.bfloat16


class CannotSplit(BaseException):
    """A step that cannot be taken in parts; nobody but who splits it catches it.

    Args:
        reason: why, as the end of a sentence that begins with "because".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Lean(Sum):
    """A gradient in parts of a batch, all of which are stepped with or none: what is clipped on the way is not kept."""

    __slots__ = ()

    def ready_with(self, grad: Tensor) -> None:
        """Keeps nothing."""

    def written_to(self, grad: Tensor) -> None:
        """Keeps nothing."""


class Shares(Accumulation):
    """The accumulation of one step over the parts of its batch.

    Args:
        shares: of the whole batch, each part's; their sum is 1.
        steps: whether optimizers step with the last part, or with none: where the gradients alone are asked for.

    Attributes:
        half: whether any of it is computed in half precision, so that sums in another order differ visibly.
    """

    __slots__ = ("_at", "_pattern", "_stepped", "_told", "half", "shares")

    def __init__(self, shares: Sequence[float], *, steps: bool = True) -> None:
        super().__init__(len(shares) + (not steps))
        self.shares = tuple(shares)
        self.half = False
        self._at = 0
        self._stepped: list[int] = []
        self._pattern: list[int] | None = None
        # What schedulers were called with in the first part.
        self._told: dict[int, tuple[Any, Any]] = {}

    def share_of(self, grad: Tensor) -> Tensor:
        """What a part's backward begins with."""
        return grad * self.shares[self._at]

    def _sum(self, leaf: Tensor) -> Sum:
        known = self._of_leaf.get(id(leaf))
        if known is None or known.leaf() is not leaf:
            known = self._of_leaf[id(leaf)] = _Lean(leaf)
        return known

    def begin(self, leaves: Mapping[int, Tensor]) -> None:
        """Puts the sums so far where a backward adds to them."""
        if self._stepped and torch._C._current_graph_task_id() == -1:
            raise CannotSplit(
                "it goes on computing gradients after an optimizer has stepped, and these would be those of the "
                "weights before that step: decorate the function that takes one step, not the loop around it"
            )
        self.half = self.half or bool(thread.here.devices) or any(leaf.dtype in _HALF for leaf in leaves.values())
        super().begin(leaves)

    def happens(self, optimizer: Any, leaves: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step that is called happens: in the last part."""
        if callable(args[0] if args else kwargs.get("closure")):
            raise CannotSplit(
                f"{type(optimizer).__name__}.step is called with a closure, which computes the gradients of one batch "
                "by itself: loop over parts of the batch in the closure"
            )
        if id(optimizer) in self._stepped:
            _stop_loop()
        self._stepped.append(id(optimizer))
        return super().happens(optimizer, leaves, args, kwargs)

    def schedules(self, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a step of a scheduler happens, which must be told the same in all parts."""
        told = self._told.setdefault(id(scheduler), (args, kwargs))
        if any(isinstance(each, Tensor) for each in (*args, *kwargs.values())) or told != (args, kwargs):
            raise CannotSplit(
                f"{type(scheduler).__name__}.step is called with a number of one part, as its loss, which is not that "
                "of the whole: call it outside of the function, with what that has returned"
            )
        return super().schedules(scheduler, args, kwargs)

    def next(self) -> None:
        """Ends a part.

        Raises:
            CannotSplit: other optimizers have stepped in it than in the first one.
        """
        if self._pattern not in (None, self._stepped):
            raise CannotSplit(
                "its optimizer does not step in each of the parts (it counts calls?): it would take another step than "
                "with the whole batch"
            )
        self._pattern, self._stepped = self._stepped, []
        self._at += 1
        for each in self._of_leaf.values():
            # Of a step that is taken elsewhere; the parts' calls clear gradients at their beginning all the same.
            if each.owner is None and each.newest is not None:
                each.so_far, each.newest = each.newest, None

    def sums(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Each leaf that has come, by identity, and the sum of its gradients so far."""
        found = ((each.leaf(), each.so_far) for each in self._of_leaf.values())
        return {id(leaf): (leaf, sum_) for leaf, sum_ in found if leaf is not None and sum_ is not None}


def _stop_loop() -> NoReturn:
    raise CannotSplit(
        "its optimizer steps more than once in a call: decorate the function that takes one step, not the loop around "
        "it"
    )
