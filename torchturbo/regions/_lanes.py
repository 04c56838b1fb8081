"""The work of moving a batch to a device: pinned memory, a side stream, and what the stream that computes waits for.

This is all that knows of streams. Who looks ahead (`_ahead`) and who goes through a batch (`_batches`) work with any
`Lane`.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import nullcontext
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class Load:
    """What is on the way for one batch.

    Attributes:
        made: tensors that have been made on the device.
        read: pinned memory of somebody else's that is being read until they have come.
    """

    __slots__ = ("made", "read")

    def __init__(self) -> None:
        self.made: list[Tensor] = []
        self.read: list[Any] = []


class Lane(Protocol):
    """A way to a device.

    Attributes:
        device: where it leads to.
    """

    device: torch.device

    def open(self) -> Any:
        """A block in which things are sent."""
        ...

    def copied(self, tensor: Tensor, load: Load) -> Tensor:
        """Begins to copy a tensor.

        Args:
            tensor: on another device.
            load: is told what is made and read.
        """
        ...

    def moved(self, thing: Any, load: Load) -> Any:
        """Begins to copy something that can move itself; the thing stays as it is.

        Args:
            thing: of a type that `moves_itself` is true of.
            load: is told what is made and read.
        """
        ...

    def mark(self) -> Any:
        """An event that happens when all that has been sent by now has come."""
        ...

    def wait(self, event: Any, tensors: list[Tensor]) -> None:
        """Has what is computed from now on come after an event, and memory be kept until that has been computed.

        Args:
            event: what `mark` has returned.
            tensors: what has come by then.
        """
        ...

    def settle(self, event: Any) -> None:
        """Waits until an event has happened.

        Args:
            event: what `mark` has returned.
        """
        ...


class SideLane:
    """By a stream beside the one that computes: of CUDA, ROCm and XPU devices.

    Args:
        device: with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._module: Any = torch.get_device_module(device)
        self._stream: Any = _side_stream(device)

    def open(self) -> Any:
        """A block in which the side stream is the current one."""
        return self._module.stream(self._stream)

    def copied(self, tensor: Tensor, load: Load) -> Tensor:
        """Begins to copy a tensor: out of pinned memory, if it is one that can be pinned."""
        plain = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_nested
        if not plain or tensor.requires_grad or tensor.device.type != "cpu":
            # From another device it is that device's own stream that copies, which torch has this one wait for.
            new = tensor.to(self.device, non_blocking=tensor.device.type == "cpu")
            load.made += memories(new)
            return new
        if tensor.is_pinned():
            load.read.append(tensor)
        else:
            # Written by now: whoever fills this tensor again does not reach the copy.
            tensor = tensor.pin_memory()
        load.made.append(made := tensor.to(self.device, non_blocking=True))
        return made

    def moved(self, thing: Any, load: Load) -> Any:
        """Begins to copy something that can move itself."""
        with _Noticing(self.device, load):
            thing = _own(thing)
            if callable(getattr(type(thing), "pin_memory", None)):
                thing = thing.pin_memory()
            load.read.append(thing)
            return _to(thing, self.device)

    def mark(self) -> Any:
        """An event of the side stream."""
        event = self._module.Event()
        event.record(self._stream)
        return event

    def wait(self, event: Any, tensors: list[Tensor]) -> None:
        """Has the current stream wait, and the allocator know that it uses the tensors."""
        current = self._module.current_stream(self.device)
        current.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(current)

    def settle(self, event: Any) -> None:
        """Waits until an event has happened."""
        event.synchronize()


class PlainLane:
    """To a device whose streams torch does not have beside each other: copied at once, on the one that it has.

    Args:
        device: any.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def open(self) -> Any:
        """Nothing to open."""
        return nullcontext()

    def copied(self, tensor: Tensor, load: Load) -> Tensor:
        """Copies a tensor."""
        return tensor.to(self.device)

    def moved(self, thing: Any, load: Load) -> Any:
        """Copies something that can move itself."""
        return _to(_own(thing), self.device)

    def mark(self) -> Any:
        """Nothing to wait for."""
        return None

    def wait(self, event: Any, tensors: list[Tensor]) -> None:
        """Nothing to wait for."""

    def settle(self, event: Any) -> None:
        """Nothing to wait for."""


@cache
def _side_stream(device: torch.device) -> Any:
    # One for all: the allocator keeps the memory of each stream apart, and a new one for each epoch would never end.
    return torch.get_device_module(device).Stream(device)


def lane_to(device: torch.device) -> Lane | None:
    """The way to a device, or None for the CPU, where batches are already.

    Args:
        device: with an index or without, for the current one.

    Raises:
        RuntimeError: torch has no such device here.
    """
    if device.type == "cpu":
        return None
    if device.type not in ("cuda", "xpu"):
        return PlainLane(torch.empty(0, device=device).device)
    if ":" not in str(device):
        device = torch.device(device.type, torch.get_device_module(device).current_device())
    return SideLane(device)


# --------------------------------------------------------------------------------------- what can move itself


@cache
def moves_itself(kind: Any) -> bool:
    """Whether things of a type are moved by a ``to`` of their own, which takes a device and no unit or time zone.

    Args:
        kind: no type of tensors.
    """
    if not callable(getattr(kind, "to", None)):
        return False
    return callable(getattr(kind, "pin_memory", None)) or "device" in _parameters(kind)


@cache
def _parameters(kind: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(kind.to).parameters)
    except (TypeError, ValueError):  # written in C
        return frozenset()


def _own(thing: Any) -> Any:
    """A shallow copy, as ``to`` and ``pin_memory`` of many types change the thing itself."""
    return copy.copy(thing)


def _to(thing: Any, device: torch.device) -> Any:
    kind: Any = type(thing)
    if "non_blocking" in _parameters(kind):
        return thing.to(device, non_blocking=True)
    return thing.to(device)


class _Noticing(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types for it
    """Notices the tensors that are made on a device, wherever they are put."""

    def __init__(self, device: torch.device, load: Load) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device, self._load = device, load

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.device == self._device:
                self._load.made += memories(each)
        return result


def memories(tensor: Tensor) -> list[Tensor]:
    """The plain tensors whose memory a tensor is in: itself, or those that a sparse, nested or wrapped one is made of.

    Args:
        tensor: any.
    """
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        return [its for name in wrapper.__tensor_flatten__()[0] for its in memories(getattr(wrapper, name))]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in _COMPRESSED:
        return [getattr(tensor, name)() for name in (*_COMPRESSED[tensor.layout], "values")]
    return list(tensor.unbind()) if tensor.is_nested else [tensor]


_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}
