"""What stands in a value: tensors, numbers, texts and arrays, in containers, modules, optimizers and objects."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

_DEEP = 32
"""Containers and objects within each other that are looked into."""
_PLAIN = (
    bool | int | float | complex | str | bytes | bytearray | torch.dtype | torch.device | torch.layout
    | torch.memory_format
)  # fmt: skip
Entries = list[tuple[str, Any]]


class Said(NamedTuple):
    """What is known of a value that is no tensor.

    Attributes:
        text: what it is compared by.
        is_value: whether that is all that it is, as of a number; a type or a size alone says little.
        unseen: what could not be looked into, or an empty text.
        is_array: whether it is an array of NumPy.
    """

    text: str
    is_value: bool = False
    unseen: str = ""
    is_array: bool = False


def leaves(value: Any, *, objects: bool) -> Iterator[tuple[str, Tensor | Said]]:
    """What stands in a value, each with where it stands.

    Args:
        value: anything.
        objects: whether objects, modules and optimizers are looked into, and not only containers.
    """
    return _Walk(objects).walk(value, "", ())


class _Walk:
    def __init__(self, objects: bool) -> None:
        self._objects = objects
        # By identity, and held: of what is made on the way another one may get the place in memory.
        self._seen: dict[int, Any] = {}

    def walk(self, value: Any, path: str, within: tuple[int, ...]) -> Iterator[tuple[str, Tensor | Said]]:
        if isinstance(value, Said):
            yield path, value
            return
        if isinstance(value, Tensor):
            yield path, Said(f"a {type(value).__name__}") if is_lazy(value) else value
            return
        said = plain(value)
        if said is not None:
            yield path, said
            return
        if id(value) in within:
            yield path, Said(_kind(value))
            return
        entries = _entries(value)
        if entries is not None:
            head = f"{type(value).__name__} of {len(entries)}"
        elif not self._objects or id(value) in self._seen:
            yield path, Said(_kind(value))
            return
        else:
            self._seen[id(value)] = value
            head = _kind(value)
            made_of = _parts(value)
            if isinstance(made_of, Said):
                yield path, made_of
                return
            entries = made_of
        if len(within) >= _DEEP:
            yield path, Said(head, unseen=head)
            return
        yield path, Said(head)
        for key, entry in entries:
            yield from self.walk(entry, f"{path}{key}", (*within, id(value)))


def plain(value: Any) -> Said | None:
    """What a value that holds nothing else is compared by; None for what holds something.

    Args:
        value: anything else than a tensor.
    """
    if value is None:
        return Said("None")
    if isinstance(value, _PLAIN):
        return Said(repr(value), is_value=True)
    if is_array(value) and not value.dtype.hasobject:
        told = f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
        return Said(told, is_value=True, is_array=bool(value.shape))
    if isinstance(value, type | FunctionType | BuiltinFunctionType) and "<" not in value.__qualname__:
        return Said(f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, ModuleType):
        return Said(f"module {value.__name__}")
    return None


def is_array(value: Any) -> bool:
    """Whether a value is an array or a number of NumPy."""
    return type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tobytes") and hasattr(value, "dtype")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _entries(value: Any) -> Entries | None:
    """What a container holds; None for what is none."""
    if isinstance(value, Mapping):
        return [(f"[{_key(key, number)}]", its) for number, (key, its) in enumerate(value.items())]
    if isinstance(value, list | tuple | deque):
        names = getattr(value, "_fields", None)
        return [(f".{names[n]}" if names else f"[{n}]", its) for n, its in enumerate(value)]
    if isinstance(value, set | frozenset):
        # A set has no order; its elements have, by what they look like.
        return [(f"{{{n}}}", its) for n, its in enumerate(sorted(value, key=repr))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return [(f".{name}", getattr(value, name)) for name in fields]
    if is_array(value):
        return [(f"[{n}]", its) for n, its in enumerate(value.ravel().tolist())]
    return None


def _key(key: Any, number: int) -> str:
    # What tells where it stands in memory is another text in each run.
    text = type(key).__name__ if isinstance(key, Tensor | nn.Module) else repr(key)
    return f"{type(key).__name__} {number}" if isinstance(key, Tensor | nn.Module) or " at 0x" in text else text


def _parts(value: Any) -> Entries | Said:
    """What an object is made of, or what there is to say of one that nobody can look into."""
    if isinstance(value, nn.Module):
        return [(f".{name}", its) for name, its in (*value.named_parameters(), *value.named_buffers())]
    if isinstance(value, Optimizer):
        return list(_of_optimizer(value))
    if isinstance(value, torch.Generator):
        return [(".get_state()", value.get_state())]
    unseen = Said(_kind(value), unseen=_kind(value))
    if isinstance(value, FunctionType | MethodType) or hasattr(type(value), "__next__"):
        return unseen
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduced = value.__reduce_ex__(4)
    except Exception:
        # Not for pickle; its attributes can be read all the same.
        attributes = getattr(value, "__dict__", None)
        return [(f".{name}", its) for name, its in attributes.items()] if attributes else unseen
    if isinstance(reduced, str):
        return Said(reduced)
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    args = tuple(each for each in args if each is not type(value))
    if args and not state and items is None and pairs is None and all(isinstance(each, _PLAIN) for each in args):
        return Said(f"{type(value).__name__}({', '.join(map(repr, args))})", is_value=True)
    entries = [
        (f".args[{n}]", its) for n, its in enumerate(args) if not (its is None or (isinstance(its, tuple) and not its))
    ]
    for each in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(each, dict):
            entries += [(f".{name}", its) for name, its in each.items()]
        elif each is not None:
            entries.append((".state", each))
    entries += [(f"[{n}]", its) for n, its in enumerate(items or ())]
    return entries + [(f"[{_key(key, n)}]", its) for n, (key, its) in enumerate(pairs or ())]


def _of_optimizer(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    for number, group in enumerate(optimizer.param_groups):
        yield from ((f".param_groups[{number}][{key!r}]", its) for key, its in group.items())
        for place, parameter in enumerate(group["params"]):
            if parameter in optimizer.state:
                yield f".state[{number}, {place}]", optimizer.state[parameter]
