"""Outputs of a module in the float type of its inputs, so that code written for float32 goes on working."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchturbo._dynamo import untraced

_untraced = partial(untraced, and_below=True)
_HALF = (torch.bfloat16, torch.float16)


@_untraced
def as_inputs(outputs: Any, inputs: Any, module: nn.Module) -> Any:
    """`outputs` with its half precision tensors in the widest float type of `inputs`.

    A module without inputs of a float type (token ids) is held to have that of its first float parameter.

    Args:
        outputs: a tensor, or tensors in containers: mappings, tuples, lists, dataclasses. A container without a tensor
            to convert comes back as it is; others are copied.
        inputs: the same.
        module: whose they are.
    """
    return _converted(outputs, lambda: _dtype_of(inputs, module))


@_untraced
def as_dtype(outputs: Any, dtype: torch.dtype) -> Any:
    """`outputs` with its half precision tensors as `dtype`."""
    return _converted(outputs, lambda: dtype)


def _dtype_of(inputs: Any, module: nn.Module) -> torch.dtype:
    widest = None
    for tensor in _tensors(inputs):
        if tensor.is_floating_point():
            widest = tensor.dtype if widest is None else torch.promote_types(widest, tensor.dtype)
    if widest is None:
        widest = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    return widest


def _parts(container: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a container; nothing where it is none."""
    if isinstance(container, Mapping):
        yield from container.items()
    elif isinstance(container, list | tuple):
        yield from enumerate(container)
    elif dataclasses.is_dataclass(container) and not isinstance(container, type):
        for field in dataclasses.fields(container):
            if hasattr(container, field.name):
                yield field.name, getattr(container, field.name)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    for _, part in _parts(value):
        yield from _tensors(part)


def _converted(value: Any, dtype: Callable[[], torch.dtype]) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype()) if value.dtype in _HALF else value
    changed = {}
    for key, part in _parts(value):
        new = _converted(part, dtype)
        if new is not part:
            changed[key] = new
    return _with(value, changed) if changed else value


def _with(container: Any, changed: dict[Any, Any]) -> Any:
    """A copy of `container` in which some parts are others."""
    if isinstance(container, tuple):
        parts = [changed.get(place, part) for place, part in enumerate(container)]
        return type(container)(*parts) if hasattr(container, "_fields") else type(container)(parts)
    copied = copy.copy(container)
    if isinstance(container, Mapping | list):
        for key, part in changed.items():
            copied[key] = part
    else:
        for name, part in changed.items():
            # Frozen ones too: the copy is ours.
            object.__setattr__(copied, name, part)
    return copied
