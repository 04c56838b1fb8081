"""The gradients of leaves, scaled while a backward runs, and true before and after it and for hooks within it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from torchturbo._dynamo import untraced
from torchturbo.errors import ScalingError
from torchturbo.regions._finite import all_finite, unscale_in_place, values_of
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._sharded import is_sharded, told_to_all


def by_hooks(leaves: dict[int, Tensor], create: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves whose gradient is divided before it is added to what stands in ``.grad``, and the others.

    They are those with hooks, which see it; all, where it is to be differentiated further.

    Args:
        leaves: the leaves, by identity.
        create: whether it is.
    """
    if create:
        return list(leaves.values()), []
    # Those too whose gradient somebody differentiates further: it must not be written to before it has been used.
    hooked = [
        leaf
        for leaf in leaves.values()
        if leaf._backward_hooks
        or leaf._post_accumulate_grad_hooks
        or (leaf.grad is not None and leaf.grad.requires_grad)
    ]
    if not hooked:
        return hooked, list(leaves.values())
    # Two leaves may share one gradient.
    theirs = {id(leaf.grad) for leaf in hooked if leaf.grad is not None}
    known = {id(leaf) for leaf in hooked}
    hooked += [leaf for key, leaf in leaves.items() if key not in known and id(leaf.grad) in theirs]
    known.update(map(id, hooked))
    return hooked, [leaf for key, leaf in leaves.items() if key not in known]


_PLAIN = (Tensor, torch.nn.Parameter)


def refuse(leaves: Mapping[int, Tensor], *, goes_on: bool, whole: Container[int] = ()) -> None:
    """Raises for leaves whose gradients cannot be scaled.

    Args:
        leaves: the leaves, by identity, and what else has been asked for.
        whole: those of them whose gradients are handed to a shard, which is divided in its own precision.
        goes_on: whether the backward goes on with the gradients of another one, as a checkpoint's does, which takes
            from the tensors that it has cut out what it goes on with.

    Raises:
        ScalingError: some are float16 themselves, or are sharded in a way that hands their gradients on unseen.
    """
    for key, leaf in leaves.items():
        if key in whole:
            continue
        if leaf.dtype is torch.float16 or getattr(leaf, "grad_dtype", None) is torch.float16:
            if not leaf.is_leaf or (goes_on and not isinstance(leaf, torch.nn.Parameter)):
                continue
            what = "parameters" if isinstance(leaf, torch.nn.Parameter) else "tensors cut out of the graph (detach())"
            raise ScalingError(
                f"fp16 gradients cannot be scaled back: {what} of shape {tuple(leaf.shape)} are float16 themselves, "
                "and small gradients would become zero in them. Keep parameters in float32 with model.float() and let "
                "autocast compute in fp16 (cut tensors out with .detach().float()), or use autocast=None"
            )
        if leaf.__class__ in _PLAIN:
            continue
        if hasattr(leaf, "_is_flat_param"):
            raise ScalingError(
                "FullyShardedDataParallel hands gradients on where they cannot be scaled back: shard the model with "
                "torch.distributed.fsdp.fully_shard, or use autocast='bf16', which needs no scaling"
            )
        if is_sharded(leaf) and leaf._post_accumulate_grad_hooks:
            raise ScalingError(
                f"a hook after the accumulation of a gradient (register_post_accumulate_grad_hook) is on a sharded "
                f"parameter of shape {tuple(leaf.shape)}, and would see it scaled: step after backward, or use "
                "autocast='bf16', which needs no scaling"
            )


def gradients_of(leaves: Iterable[Tensor]) -> list[Tensor]:
    """The gradients of leaves, each once.

    Args:
        leaves: the leaves.
    """
    return list({id(grad): grad for leaf in leaves if (grad := leaf.grad) is not None}.values())


@torch.no_grad()
def scale_in_place(grads: list[Tensor], scale: float) -> None:
    """Multiplies gradients that stand before a backward adds to them.

    Args:
        grads: dense or sparse, each once.
        scale: what to multiply by.
    """
    torch._foreach_mul_([values_of(grad) for grad in grads], scale)


def unscale_leaves(
    scaler: Scaler, scale: float, leaves: list[Tensor], kept: Sequence[Tensor] = (), *, alone: bool = False
) -> None:
    """Divides what a backward has left, and notes whose gradients have overflowed.

    Args:
        scaler: notes it.
        scale: what to divide by.
        leaves: the leaves, all of whose gradients are scaled.
        kept: more that is scaled, and on its way to some gradient.
        alone: whether the others are not asked, who may be waiting for a backward that has failed here.
    """
    grads = gradients_of(leaves)
    fine = unscale_in_place([*grads, *kept], 1.0 / scale)
    if fine if alone else told_to_all(fine, leaves):
        scaler.finite(grads)
    else:
        _note_overflow(scaler, leaves)


def check_leaves(scaler: Scaler, leaves: list[Tensor], *, alone: bool = False) -> None:
    """Notes whose gradients have overflowed after they were divided: a reduction brings that of other processes.

    Args:
        scaler: notes it.
        leaves: the leaves.
        alone: whether the others are not asked.
    """
    grads = gradients_of(leaves)
    fine = all_finite(grads)
    if fine if alone else told_to_all(fine, leaves):
        scaler.finite(grads)
    else:
        _note_overflow(scaler, leaves)


def _note_overflow(scaler: Scaler, leaves: list[Tensor]) -> None:
    for leaf in leaves:
        # Which shard it was in, the other processes do not know.
        elsewhere = is_sharded(leaf)
        if leaf.grad is not None and (elsewhere or not bool(torch.isfinite(values_of(leaf.grad)).all())):
            scaler.overflowed(leaf, True)
            scaler.overflowed(leaf.grad, True)


def divide_first(scaler: Scaler | None, scale: float, leaf: Tensor) -> Callable[[], None]:
    """Has a leaf's gradient divided before its hooks see it, and before it is added to what stands there.

    Args:
        scaler: notes an overflow; or None.
        scale: what to divide by.
        leaf: the leaf.

    Returns:
        what ends that.
    """
    inverse = 1.0 / scale

    @untraced
    def divide(grad: Tensor) -> Tensor:
        true = grad * inverse
        if scaler is not None and not scaler.is_bad(leaf):
            scaler.overflowed(leaf, ~torch.isfinite(values_of(true.detach())).all())
        return true

    handle: RemovableHandle = leaf.register_hook(divide)  # type: ignore[no-untyped-call]
    hooks: Any = leaf._backward_hooks
    if len(hooks) > 1:
        _move_to_front(hooks, handle.id)
    return handle.remove


def _move_to_front(hooks: OrderedDict[int, Any], key: int) -> None:
    # torch goes through the dict beneath, in which move_to_end moves nothing.
    ours = hooks.pop(key)
    theirs = list(hooks.items())
    hooks.clear()
    hooks[key] = ours
    hooks.update(theirs)
