"""Outputs of a module in the float type of its inputs, so that code written for float32 goes on working."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchturbo._dynamo import untraced

_untraced = partial(untraced, and_below=True)


@_untraced
def as_inputs(outputs: Any, half: torch.dtype, inputs: Any, module: nn.Module) -> Any:
    """`outputs`, where autocast has made them half precision, in the widest float type of `inputs`.

    A module without inputs of a float type (token ids) is held to have that of its first float parameter.

    Args:
        outputs: a tensor, or tensors in containers: mappings, tuples, lists, dataclasses. Containers in which something
            is converted are copied; one that cannot be copied comes back as it is.
        half: what autocast makes of float32.
        inputs: the same.
        module: whose they are.
    """
    return _converted(outputs, half, lambda: _dtype_of(inputs, module), set())


@_untraced
def as_dtype(outputs: Any, half: torch.dtype, dtype: torch.dtype) -> Any:
    """`outputs`, where autocast has made them `half` precision, as `dtype`."""
    return _converted(outputs, half, lambda: dtype, set())


def _dtype_of(inputs: Any, module: nn.Module) -> torch.dtype:
    widest = None
    for tensor in _tensors(inputs, set()):
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


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        for _, part in _parts(value):
            yield from _tensors(part, seen)


def _converted(value: Any, half: torch.dtype, dtype: Callable[[], torch.dtype], within: set[int]) -> Any:
    """A value, converted; what holds itself, through whatever is `within`, stays as it is there."""
    if isinstance(value, Tensor):
        return value.to(dtype()) if value.dtype is half else value
    if id(value) in within:
        return value
    within.add(id(value))
    changed = {}
    for key, part in _parts(value):
        new = _converted(part, half, dtype, within)
        if new is not part:
            changed[key] = new
    within.discard(id(value))
    return _with(value, changed) if changed else value


def _with(container: Any, changed: dict[Any, Any]) -> Any:
    """A copy of `container` in which some parts are others; itself, if it is of a kind that cannot be copied so."""
    with suppress(Exception):
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
    return container
