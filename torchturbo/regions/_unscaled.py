"""Gradients that were not scaled, since one may only look at them; no step is taken with them."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

from torch import Tensor

from torchturbo.errors import ScalingError


class Unscaled:
    """What `torch.autograd.grad` has given as fp16 has it, for as long as it lives."""

    __slots__ = ("_grads",)

    def __init__(self) -> None:
        self._grads: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def are(self, grads: Iterable[Tensor]) -> None:
        """Notes what was given.

        Args:
            grads: the gradients.
        """
        self._grads.update((id(grad), grad) for grad in grads)

    def refuse(self, leaves: Iterable[Tensor]) -> None:
        """Raises where a step is to be taken with them.

        Args:
            leaves: the parameters of an optimizer.

        Raises:
            ScalingError: a gradient of theirs is among them.
        """
        for leaf in leaves if self._grads else ():
            if leaf.grad is not None and self._grads.get(id(leaf.grad)) is leaf.grad:
                raise ScalingError(
                    "this step is with gradients from torch.autograd.grad, which are scaled only where they are of "
                    "all parameters that the loss depends on: small ones have become zero in fp16. Ask for those of "
                    "all nn.Parameters, or call loss.backward(inputs=...)"
                )
