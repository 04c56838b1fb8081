"""Gradients multiplied in place, and whether all of them are finite: one kernel of torch does both."""

from __future__ import annotations

import sys
import threading

import torch
from torch import Tensor

from torchturbo.regions._sharded import local


def all_finite(grads: list[Tensor]) -> bool:
    """Whether no gradient holds inf or nan.

    Args:
        grads: dense or sparse.
    """
    grads = [grad for grad in grads if not has_no_values(grad)]
    # One kernel for all of them; it writes what it reads, which a graph over a gradient would take for a change.
    plain = [grad for grad in grads if not grad.requires_grad]
    others = grads if len(plain) < len(grads) else ()
    return unscale_in_place(plain, 1.0) and all(bool(torch.isfinite(values_of(grad.detach())).all()) for grad in others)


def has_no_values(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and no numbers: it is on the meta device, or fake.

    Args:
        tensor: any.
    """
    if tensor.is_meta:
        return True
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    return fake is not None and isinstance(tensor, fake.FakeTensor)


class _Numbers(threading.local):
    """The numbers that the kernel is given as tensors, of this thread: it writes one of them."""

    def __init__(self) -> None:
        self.inverse: dict[tuple[torch.device, float], Tensor] = {}
        self.found: dict[torch.device, Tensor] = {}


_numbers = _Numbers()


def unscale_in_place(grads: list[Tensor], inverse: float) -> bool:
    """Multiplies gradients in place, and returns whether all of them are finite.

    Args:
        grads: dense or sparse, of any devices and dtypes.
        inverse: what to multiply by.
    """
    if not grads:
        return True
    device, dtype = grads[0].device, grads[0].dtype
    for grad in grads:
        if grad.__class__ is not Tensor or grad.dtype is not dtype or grad.layout is not torch.strided:
            return _unscale_in_groups(grads, inverse)
        if grad.requires_grad or grad.device != device:
            return _unscale_in_groups(grads, inverse)
    return _unscale_alike(grads, inverse, device)


def _unscale_in_groups(grads: list[Tensor], inverse: float) -> bool:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for grad in map(values_of, grads):
        groups.setdefault((grad.device, grad.dtype), []).append(grad)
    with torch.no_grad():
        return all([_unscale_alike(group, inverse, device) for (device, _), group in groups.items()])


def _unscale_alike(grads: list[Tensor], inverse: float, device: torch.device) -> bool:
    factor = _numbers.inverse.get((device, inverse))
    if factor is None:
        if len(_numbers.inverse) > 64:
            _numbers.inverse.clear()
        with torch.inference_mode(False):
            factor = _numbers.inverse[device, inverse] = torch.tensor(inverse, dtype=torch.float32, device=device)
    found = _numbers.found.get(device)
    if found is None:
        with torch.inference_mode(False):
            found = _numbers.found[device] = torch.zeros((), dtype=torch.float32, device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found, factor)
    if found.item():
        found.zero_()
        return False
    return True


def values_of(grad: Tensor) -> Tensor:
    """The numbers of a gradient that this process has, as a dense tensor of reals that shares its memory."""
    grad = local(grad)
    if grad.is_sparse:
        grad = grad._values()
    return torch.view_as_real(grad) if grad.is_complex() else grad


def has_gradient(leaf: Tensor) -> bool:
    """Whether a leaf has a gradient that is not all zeros, as far as this process has it."""
    return leaf.grad is not None and bool(values_of(leaf.grad.detach()).any())
