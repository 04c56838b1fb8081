"""What a function may change, kept as it was before, and put back bit for bit: in the same tensors and containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CellType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchturbo._replay.bits import is_let_go, parts, same_bits, unseen
from torchturbo._replay.holders import (
    NOTHING,
    changed,
    content,
    fill,
    set_attributes,
    set_content,
    set_global,
    shallow,
)
from torchturbo._replay.positions import Position
from torchturbo._replay.streams import Stream
from torchturbo.errors import RestoreError

_set_versions: Any = torch._C._autograd._unsafe_set_version_counter
LARGEST = 64 * 1024**2
"""Bytes up to which a tensor is copied that is no weight, as far as is known: a data set may be larger than memory."""
ALL = 512 * 1024**2
"""Bytes of such tensors that are copied together."""


class Values(NamedTuple):
    """Plain values in memory: the memory, and what stood in it."""

    alias: Tensor
    copy: Tensor

    def put_back(self) -> None:
        """Puts it back, where it is another. Who has let go of the memory fills it anew when it is needed."""
        if is_let_go(self.alias):
            return
        copy = self.copy.to(self.alias.device)
        if not same_bits(self.alias, copy):
            self.alias.copy_(copy)


def values(plain: Tensor) -> Values:
    """What stands in a plain tensor: in memory of its device, or of the machine where that is full."""
    alias = plain.detach()
    if _overlaps_itself(alias):
        # Nobody can write into a tensor whose elements share memory, but into what it is a view of.
        alias = torch.empty(0, dtype=torch.uint8, device=plain.device).set_(plain.untyped_storage())
    try:
        return Values(alias, alias.clone())
    except torch.OutOfMemoryError:
        if alias.device.type == "cpu":
            raise
        return Values(alias, alias.cpu())


def _overlaps_itself(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


class KeptTensor:
    """One tensor as it was: its values, its memory, its gradient, and whether it asks for one.

    Args:
        tensor: any tensor.
        copied: whether its values are copied, or only watched.
    """

    __slots__ = ("alias", "grad", "requires_grad", "tensor", "values", "version")

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor = tensor
        self.alias = tensor.detach()
        self.requires_grad = tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.version = None if tensor.is_inference() else tensor._version
        self.values = [values(part) for _, part in parts(tensor)] if copied else None

    @property
    def is_lost(self) -> bool:
        """Whether it was written to, and there is no copy to put back."""
        return self.values is None and self.version is not None and self.tensor._version != self.version

    @property
    def is_as_it_was(self) -> bool:
        """Whether it is only watched, and nobody has written to it."""
        return self.values is None and not self.is_lost

    def put_back(self) -> None:
        """Puts back all but its gradient, which may not fit before it has been put back itself."""
        tensor = self.tensor
        if tensor.is_leaf and tensor.grad is not self.grad:
            tensor.grad = None
        if not _is_where_it_was(tensor, self.alias):
            tensor.data = self.alias
        if self.values is not None:
            for values in self.values:
                values.put_back()
        if tensor.is_leaf and tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if self.version is not None and self.values is not None:
            # A graph that somebody keeps compares it with what it has saved.
            _set_versions((tensor,), (self.version,))

    def put_back_gradient(self) -> None:
        """Gives it the gradient that it had."""
        if self.tensor.is_leaf and self.tensor.grad is not self.grad:
            self.tensor.grad = self.grad


def _is_where_it_was(tensor: Tensor, alias: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_nested or type(tensor.detach()) is not Tensor:
        return [part.data_ptr() for _, part in parts(tensor)] == [part.data_ptr() for _, part in parts(alias)]
    return (
        tensor.dtype is alias.dtype
        and tensor.device == alias.device
        and tensor.data_ptr() == alias.data_ptr()
        and tensor.shape == alias.shape
        and tensor.stride() == alias.stride()
    )


class Keeper:
    """All that has been kept so far. What is met later is kept when it is met, before anything has changed it.

    Attributes:
        tensors: by identity, with what they were.
    """

    def __init__(self) -> None:
        self.tensors: dict[int, KeptTensor] = {}
        self._containers: dict[int, tuple[Any, tuple[str, Any]]] = {}
        self._arrays: dict[int, tuple[Any, tuple[str, Any]]] = {}
        self._classes: dict[int, tuple[type, tuple[str, dict[str, Any]]]] = {}
        self._cells: dict[int, tuple[CellType, tuple[str, Any]]] = {}
        self._globals: dict[tuple[int, str], tuple[dict[str, Any], Any]] = {}
        self._streams: dict[int, tuple[Stream, Any]] = {}
        self._positions: list[Position] = []
        self._runs = False
        self._room = self._settled_room = ALL
        self._settled: list[tuple[dict[Any, Any], dict[Any, Any]]] = []

    def tensor(self, tensor: Tensor, *, copied: bool = True) -> None:
        """Keeps a tensor, and its gradient.

        Args:
            tensor: any.
            copied: whether also one that is too large to be copied without need.
        """
        if id(tensor) in self.tensors and (not copied or self.tensors[id(tensor)].values is not None):
            return
        size = 0 if copied else _size(tensor)
        fits = size <= min(LARGEST, self._room)
        with unseen():
            kept = self.tensors[id(tensor)] = KeptTensor(tensor, fits)
        self._room -= size if fits else 0
        if kept.grad is not None:
            self.tensor(kept.grad)

    def container(self, name: str, container: Any) -> None:
        """Keeps what a dictionary, list, set or deque holds."""
        if id(container) not in self._containers:
            self._containers[id(container)] = container, (name, shallow(container))

    def array(self, name: str, array: Any) -> None:
        """Keeps the values of a NumPy array, unless it is large, which data is, or cannot be written to."""
        if array.nbytes <= LARGEST and array.flags.writeable:
            self._arrays.setdefault(id(array), (array, (name, array.copy())))

    def attributes(self, name: str, kind: type) -> None:
        """Keeps what a class's attributes stand for."""
        self._classes.setdefault(id(kind), (kind, (f"{name}.", dict(vars(kind)))))

    def cell(self, name: str, cell: CellType) -> None:
        """Keeps what a variable of a closure stands for."""
        self._cells.setdefault(id(cell), (cell, (name, content(cell))))

    def variable(self, names: dict[str, Any], name: str) -> None:
        """Keeps what a global variable stands for."""
        self._globals.setdefault((id(names), name), (names, names.get(name, NOTHING)))

    def stream(self, stream: Stream) -> None:
        """Keeps where a random stream stands."""
        self._streams[len(self._streams)] = stream, stream.read()

    def position(self, position: Position) -> None:
        """Keeps where an iterator stands."""
        self._positions.append(position)
        if self._runs:
            position.begin(self.streams)

    @property
    def has_positions(self) -> bool:
        """Whether there are iterators that are put back."""
        return bool(self._positions)

    def begin(self) -> None:
        """Has iterators begin where they stood; before each run."""
        self._runs = True
        for position in self._positions:
            position.begin(self.streams)

    def streams(self) -> Iterable[Stream]:
        """The streams that are kept."""
        return (stream for stream, _ in self._streams.values())

    @property
    def lost(self) -> list[Tensor]:
        """Tensors that were written to and that nobody can put back."""
        return [kept.tensor for kept in self.tensors.values() if kept.is_lost]

    def left(self) -> Iterator[tuple[str, Any]]:
        """What a run has put where something else was, or nothing, and arrays that it has written to, by name."""
        _, containers, arrays, classes, cells, names = (settled.keys() for _, settled in self._settled[:6])
        for container, (name, copy) in [self._containers[key] for key in containers]:
            yield from changed(name, container, copy)
        for array, (name, copy) in [self._arrays[key] for key in arrays]:
            if array.tobytes() != copy.tobytes():
                yield name, array
        for kind, (name, attributes) in [self._classes[key] for key in classes]:
            yield from changed(name, dict(vars(kind)), attributes)
        for cell, (name, before) in [self._cells[key] for key in cells]:
            if content(cell) is not before:
                yield name, content(cell)
        for key in names:
            held, before = self._globals[key]
            if held.get(key[1], NOTHING) is not before:
                yield key[1], held.get(key[1])

    def settle(self) -> None:
        """Remembers what is kept by now as what is never forgotten."""
        kept = (self.tensors, self._containers, self._arrays, self._classes, self._cells, self._globals, self._streams)
        self._settled = [(each, each.copy()) for each in kept]
        self._settled_room = self._room

    def forget(self) -> None:
        """Forgets what has been kept since then, once it has been put back."""
        for now, settled in self._settled:
            now.clear()
            now.update(settled)
        self._room = self._settled_room

    def put_back(self) -> None:
        """Puts everything back.

        Raises:
            RestoreError: something did not go back; everything else has.
        """
        refused: list[tuple[str, Exception]] = []

        def attempt(what: str, action: Callable[..., object], *given: Any) -> None:
            try:
                action(*given)
            except Exception as error:
                refused.append((what, error))

        self._runs = False
        for position in self._positions:
            attempt("an iterator", position.put_back)
        for container, (_, copy) in self._containers.values():
            attempt(f"a {type(container).__name__}", fill, container, copy)
        for array, (_, copy) in self._arrays.values():
            attempt("an array", array.__setitem__, ..., copy)
        for kind, (_, attributes) in self._classes.values():
            attempt(f"the class {kind.__name__}", set_attributes, kind, attributes)
        for cell, (_, before) in self._cells.values():
            attempt("a variable", set_content, cell, before)
        for (_, name), (names, value) in self._globals.items():
            attempt(name, set_global, names, name, value)
        with unseen():
            for kept in self.tensors.values():
                attempt(f"a tensor of shape {tuple(kept.alias.shape)}", kept.put_back)
            for kept in self.tensors.values():
                attempt(f"a gradient of shape {tuple(kept.alias.shape)}", kept.put_back_gradient)
        for stream, state in self._streams.values():
            attempt(stream.name, stream.write, state)
        if refused:
            what = "; ".join(f"{name}: {error}" for name, error in refused)
            raise RestoreError(f"not everything that the function changed could be put back: {what}")


def _size(tensor: Tensor) -> int:
    return sum(part.nbytes for _, part in parts(tensor))
