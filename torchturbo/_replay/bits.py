"""Tensors, bit by bit: what they are made of, their digests, and how far apart two of them are."""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

ONLY_STORED = re.compile(r"torch\.(bits\w+|u?int[1-7]|float4\w+)")
"""Types that torch can neither copy nor compare."""


@contextmanager
def unseen() -> Iterator[None]:
    """A block in which tensors are read as they are: nothing is recorded for backward, or handed to subclasses."""
    before = torch.is_grad_enabled()
    try:
        torch._C._set_grad_enabled(False)  # an interrupt in the exit of torch.no_grad() would leave it off
        with torch._C.DisableTorchFunction():
            yield
    finally:
        torch._C._set_grad_enabled(before)


def parts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that a tensor is made of, by name: itself, or those within a sparse one or a subclass.

    Args:
        tensor: any tensor. One that has no memory (the meta device, a fake one, what FSDP2 has let go) has no parts.
    """
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        for name in wrapper.__tensor_flatten__()[0]:
            within = getattr(wrapper, name)
            if isinstance(within, Tensor):  # a DTensor names the mesh of its processes too
                yield from ((f".{name}{more}", part) for more, part in parts(within))
    elif tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return
    elif tensor.layout is torch.sparse_coo:
        yield from ((".indices", tensor._indices()), (".values", tensor._values()))
    elif tensor.layout is not torch.strided:
        yield "", tensor.to_dense()
    elif tensor.is_nested:
        yield from ((f"[{number}]", part) for number, part in enumerate(tensor.unbind()))
    elif ONLY_STORED.fullmatch(str(tensor.dtype)):
        yield "", tensor.view(torch.uint8 if tensor.itemsize == 1 else torch.int16)
    elif tensor.is_quantized:
        yield "", tensor.int_repr()
    elif not is_let_go(tensor):
        yield "", tensor


def is_let_go(tensor: Tensor) -> bool:
    """Whether a plain tensor's memory was given back while it lives, as FSDP2 does with gathered weights.

    Args:
        tensor: a plain tensor.
    """
    return bool(tensor.numel()) and not tensor.untyped_storage().nbytes()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two plain tensors of one shape and type are equal bit for bit, also in -0.0 and in NaN."""
    one, other = _as_bytes(one), _as_bytes(other)
    return bool(torch.equal(one, other))


def _as_bytes(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()
    # A tensor without elements counts as contiguous whatever its strides are, which `view` then minds.
    return tensor.detach().contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def here(tensor: Tensor) -> Tensor:
    """A plain tensor's values in the CPU's memory, in order, with one NaN for all NaN.

    Args:
        tensor: a plain tensor.
    """
    tensor = tensor.detach().cpu()
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()
    tensor = tensor.contiguous()
    if tensor.is_floating_point():
        # Which NaN it is depends on what vectorized code met first, and nobody can see it.
        strange = torch.isnan(tensor)
        if bool(strange.any()):
            tensor = tensor.masked_fill(strange, float("nan"))
    return tensor


def digest(tensor: Tensor) -> str:
    """A digest of a plain tensor in the CPU's memory, as `here` makes it.

    Args:
        tensor: in order, on the CPU.
    """
    size = tensor.numel() * tensor.element_size()
    if not size:
        return ""
    return hashlib.sha256((ctypes.c_char * size).from_address(tensor.data_ptr())).hexdigest()


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference between two tensors of one shape; NaN where one is NaN and the other is not.

    Args:
        one: as `here` makes it.
        other: the same.
    """
    if not one.numel():
        return 0.0
    left, right = one.double(), other.double()
    alike = (left == right) | (left.isnan() & right.isnan())
    apart = (left - right).abs().masked_fill(alike, 0.0)
    return float(apart.max()) if not bool(apart.isnan().any()) else float("nan")
