"""Bytes of tensors that are there at once, with memory or without: counted by storage, from its making to its end."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the storages that operators make, as long as they are there.

    Args:
        device: the type of device that counts.

    Attributes:
        now: bytes that are there.
        peak: the most that were there.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self._device = device
        self._known: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def begin(self, there: Iterable[Tensor]) -> None:
        """Counts from here on.

        Args:
            there: tensors whose memory does not count.
        """
        self._known = {}
        self.now = self.peak = 0
        for tensor in there:
            storage = storage_of(tensor)
            if storage is not None:
                self._known[storage._cdata] = weakref.ref(storage)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device:
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = storage_of(tensor)
        if storage is None or storage._cdata in self._known:
            return
        place, size = storage._cdata, storage.nbytes()

        def gone(reference: weakref.ref[Any]) -> None:
            if self._known.get(place) is reference:
                del self._known[place]
                self.now -= size

        self._known[place] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """Whose memory a tensor's is; None of what has none of its own, as a sparse one."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def bytes_of(tensors: Iterable[Tensor], device: str) -> int:
    """Bytes of the memory of some tensors, each once.

    Args:
        tensors: any.
        device: the type of device that counts.
    """
    storages = [storage_of(tensor) for tensor in tensors if tensor.device.type == device]
    return sum({its._cdata: its.nbytes() for its in storages if its is not None}.values())
