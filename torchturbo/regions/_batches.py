"""Going through a batch, whatever it is made of: some of what is in it is exchanged, and all else stays."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Mapping, MutableMapping, MutableSequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from torchturbo.regions._lanes import Lane, Load, moves_itself

_LEFT = (str, bytes, bytearray, int, float, complex, type, range, nn.Module, torch.device, torch.dtype, type(None))
"""What has no tensors in it, or is no data."""


INSIDE: Any = object()
"""What is answered of a value that is to be looked into."""


def sent(batch: Any, lane: Lane, load: Load) -> Any:
    """A batch whose tensors are on the way to a device; the batch itself stays as it is.

    What is in it twice is in what is returned twice. What has no tensor in it is the same object there.

    Args:
        batch: anything.
        lane: the way.
        load: is told what is made and read.
    """
    return _Sending(lane, load).of(batch)


def inside(value: Any) -> dict[Any, Any] | None:
    """What a container in a batch holds, by key or by place; None of all else.

    Args:
        value: anything.
    """
    if isinstance(value, _LEFT):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | MutableSequence):
        return dict(enumerate(value))
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
    return None


class Changing:
    """Makes of a batch one with other things in it. The batch stays as it is, and so does what nothing changes in.

    What is changed is for a class of its own to say. No function is given instead: one that comes back to this would
    keep whole batches until the collector comes by.
    """

    def __init__(self) -> None:
        # With what was changed, which keeps its identity from being given to something else meanwhile.
        self._known: dict[int, tuple[Any, Any]] = {}

    def change(self, value: Any) -> Any:
        """What is to stand in the place of a value: it, another one, or `INSIDE`.

        Args:
            value: what is in the batch.
        """
        raise NotImplementedError

    def of(self, value: Any) -> Any:
        """What stands in the place of a value.

        Args:
            value: a batch, or what is in it.
        """
        if isinstance(value, _LEFT):
            return value
        known = self._known.get(id(value))
        if known is None:
            # What holds itself finds itself as it was.
            self._known[id(value)] = value, value
            known = self._known[id(value)] = value, self._new(value)
        return known[1]

    def _new(self, value: Any) -> Any:
        new = self.change(value)
        if new is not INSIDE:
            return new
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, MutableSequence):
            return self._sequence(value)
        if is_dataclass(value):
            return self._dataclass(value)
        return value

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        new = {key: self.of(its) for key, its in value.items()}
        changed = {key: its for key, its in new.items() if its is not value[key]}
        if not changed:
            return value
        try:
            if not isinstance(value, MutableMapping):
                return type(value)(new)  # type: ignore[call-arg]
            made = copy.copy(value)
            for key, its in changed.items():
                made[key] = its
            return made
        except TypeError:
            return new

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        new = [self.of(its) for its in value]
        if all(one is other for one, other in zip(new, value, strict=True)):
            return value
        # A NamedTuple takes its fields one by one, and whatever else is made of a tuple takes them together.
        return type(value)._make(new) if hasattr(value, "_fields") else type(value)(new)  # type: ignore[attr-defined]

    def _sequence(self, value: MutableSequence[Any]) -> Any:
        new = [self.of(its) for its in value]
        changed = [number for number, its in enumerate(new) if its is not value[number]]
        if not changed:
            return value
        try:
            made = copy.copy(value)
            for number in changed:
                made[number] = new[number]
            return made
        except TypeError:
            return new

    def _dataclass(self, value: Any) -> Any:
        new = {name: self.of(its) for name, its in (inside(value) or {}).items()}
        changed = {name: its for name, its in new.items() if its is not getattr(value, name)}
        if not changed:
            return value
        made = copy.copy(value)
        for name, its in changed.items():
            # As one that is frozen would not have it.
            object.__setattr__(made, name, its)
        return made


class _Sending(Changing):
    def __init__(self, lane: Lane, load: Load) -> None:
        super().__init__()
        self._lane, self._load = lane, load

    def change(self, value: Any) -> Any:
        """Tensors, and what moves itself, on their way."""
        if isinstance(value, Tensor):
            return value if value.device == self._lane.device else self._lane.copied(value, self._load)
        if isinstance(value, PackedSequence):
            # Where the sequences end is the CPU's to know.
            data, at, back = map(self.of, (value.data, value.sorted_indices, value.unsorted_indices))
            return type(value)(data, value.batch_sizes, at, back)
        kind: Any = type(value)
        if not isinstance(value, dict | UserDict) and moves_itself(kind):
            return self._lane.moved(value, self._load)
        return INSIDE
