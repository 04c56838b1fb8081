"""What a rank's part of a batch counts for in the mean over ranks, where the parts are not of one size.

Gradients are averaged over ranks, each of which has averaged over its samples. Where one has fewer, its mean counts for
less: its gradients are multiplied by the samples that it has over those that it would have had, where they enter the
model in backward. So the average is that of one process with all samples. Where they leave it again, they are divided:
a model may be called on what another one, or itself, has returned, and each gradient is weighed once.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from torchturbo._dynamo import untraced
from torchturbo.errors import DistributedError

ON_RANKS: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
"""The models that `distribute` has put on ranks."""
_handles: list[Any] = []
_under_way: dict[int, float] = {}
"""What the batch that each iteration has given last counts for; the newest is the last."""
newest = 1.0
"""What the batch that was given out last counts for."""


class Iteration:
    """One iteration over a loader whose batches may be uneven, for as long as somebody can take another one of it.

    Where one ends within another, as a validation does, the batch of the outer one counts again.
    """

    __slots__ = ()

    def counts(self, weight: float) -> None:
        """Has the next forwards of all distributed models count as much as a batch that is given out.

        Args:
            weight: of this rank's part.
        """
        _under_way.pop(id(self), None)
        _under_way[id(self)] = weight
        _hang(weight)

    def ends(self) -> None:
        """Has its batches count no more."""
        if _under_way.pop(id(self), None) is not None:
            _hang(next(reversed(_under_way.values()), 1.0))

    __del__ = ends


def _hang(weight: float) -> None:
    """Puts a weight on the models; nothing where it is 1, which all batches of an epoch are but the last."""
    global newest
    newest = weight
    while _handles:
        _handles.pop().remove()
    if weight == 1.0:
        return

    @untraced
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return weighted(output, weight, must=module.training)

    @untraced
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return weighted((args, kwargs), 1 / weight, must=False)

    for model in list(ON_RANKS):
        _handles.append(model.register_forward_hook(hook))
        if weight:
            _handles.append(model.register_forward_pre_hook(before, with_kwargs=True))


def weighted(output: Any, weight: float, *, must: bool = True) -> Any:
    """What a model has returned, with gradients multiplied on the way back.

    Args:
        output: tensors, in what torch's pytrees know.
        weight: the factor.
        must: whether there have to be some.

    Raises:
        DistributedError: `must`, and no tensor is found in it that a gradient would come back by.
    """
    if not torch.is_grad_enabled():
        return output
    found = 0

    def once(tensor: Tensor) -> Tensor:
        nonlocal found
        if not tensor.requires_grad:
            return tensor
        found += 1
        seen = tensor.view_as(tensor)
        seen.register_hook(lambda grad: grad * weight)  # type: ignore[no-untyped-call]
        return seen

    result = tree_map_only(Tensor, once, output)
    if must and not found:
        raise DistributedError(
            f"this batch is uneven between the ranks, and what the model returns ({type(output).__name__}) shows no "
            "tensor whose gradient could be weighed: return tensors, tuples, lists or dictionaries; or make the "
            "batches even with drop_last=True in the DataLoader"
        )
    return result
