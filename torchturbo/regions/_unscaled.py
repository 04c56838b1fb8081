"""Gradients that were not scaled, since one may only look at them; no step is taken with them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import Tensor

from torchturbo.errors import ScalingError


class Unscaled:
    """What `torch.autograd.grad` last gave as fp16 has it."""

    __slots__ = ("_grads",)

    def __init__(self) -> None:
        self._grads: dict[int, weakref.ref[Tensor]] = {}

    def are(self, grads: Iterable[Tensor]) -> None:
        """Notes what was given.

        Args:
            grads: the gradients.
        """
        self._grads = {id(grad): weakref.ref(grad) for grad in grads}

    def refuse(self, leaves: Iterable[Tensor]) -> None:
        """Raises where a step is to be taken with them.

        Args:
            leaves: the parameters of an optimizer.

        Raises:
            ScalingError: a gradient of theirs is among them.
        """
        for leaf in leaves if self._grads else ():
            unscaled = self._grads.get(id(leaf.grad))
            if unscaled is not None and unscaled() is leaf.grad:
                raise ScalingError(
                    "this step is with gradients from torch.autograd.grad, which are not scaled where they are of some "
                    "of a loss's parameters only: small ones have become zero in fp16. Ask for those of all "
                    "parameters, or call loss.backward(inputs=...)"
                )
