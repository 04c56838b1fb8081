"""Tensors and other values, bit by bit: what they are made of, their digests, and how far apart two of them are."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_ONLY_STORED = re.compile(r"torch\.(bits\w+|u?int[1-7]|float4\w+)")
"""Types that torch can neither copy nor compare."""


@contextmanager
def unseen() -> Iterator[None]:
    """A block in which tensors are read as they are: nothing is recorded for backward, or handed to subclasses."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield


def parts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that a tensor is made of, by name: itself, or those within a sparse one or a subclass.

    Args:
        tensor: any tensor. One that has no memory (the meta device, a fake one) has no parts.
    """
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        for name in wrapper.__tensor_flatten__()[0]:
            yield from ((f".{name}{more}", part) for more, part in parts(getattr(wrapper, name)))
    elif tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return
    elif tensor.layout is torch.sparse_coo:
        yield from ((".indices", tensor._indices()), (".values", tensor._values()))
    elif tensor.layout is not torch.strided:
        yield "", tensor.to_dense()
    elif tensor.is_nested:
        yield from ((f"[{number}]", part) for number, part in enumerate(tensor.unbind()))
    elif _ONLY_STORED.fullmatch(str(tensor.dtype)):
        yield "", tensor.view(torch.uint8 if tensor.itemsize == 1 else torch.int16)
    elif tensor.is_quantized:
        yield "", tensor.int_repr()
    else:
        yield "", tensor


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two plain tensors of one shape and type are equal bit for bit, also in -0.0 and in NaN."""
    one, other = _as_bytes(one), _as_bytes(other)
    return bool(torch.equal(one, other))


def _as_bytes(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


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


def leaves(value: Any, path: str = "", within: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
    """What stands in a value: tensors, arrays and plain values in containers, each with where it stands.

    Args:
        value: anything. What is no container comes as it is.
        path: where it stands.
        within: the containers around it, by identity.
    """
    entries = None if id(value) in within else _entries(value)
    if entries is None:
        yield path, value
        return
    within |= {id(value)}
    yield path, f"{type(value).__name__} of {len(entries)}"
    for key, entry in entries:
        yield from leaves(entry, f"{path}{key}", within)


def _entries(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", its) for key, its in value.items()]
    if isinstance(value, list | tuple):
        names = getattr(value, "_fields", None)
        return [(f".{names[n]}" if names else f"[{n}]", its) for n, its in enumerate(value)]
    if isinstance(value, set | frozenset):
        # A set has no order; its elements have, by what they look like.
        return [(f"{{{n}}}", its) for n, its in enumerate(sorted(value, key=repr))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return [(f".{name}", getattr(value, name)) for name in fields]
    return None


def plain(value: Any) -> str:
    """What two values that are no tensors are compared by: numbers and texts by what they are, others by their type.

    Args:
        value: anything else than a tensor.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tobytes") and value.dtype.kind != "O":
        return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    return f"a {type(value).__name__}"
