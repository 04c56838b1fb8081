"""`prefetch`: a loader whose batches are on the device before the loop asks for them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import wrapt

from torchturbo.errors import TargetError, UnsupportedHere, in_a_line
from torchturbo.hardware import detect
from torchturbo.regions._ahead import Ahead, fetching
from torchturbo.regions._lanes import Lane, lane_to

L = TypeVar("L")


def prefetch(loader: L, device: torch.device | str | int | None = None) -> L:
    """A loader that gives its batches on a device, each on its way there while the one before it is used.

    Batches come in the same order and with the same values: dictionaries, lists, tuples, NamedTuples, dataclasses,
    packed sequences, Hugging Face's batches, and objects of your own that have a ``to(device)``, in any nesting. What
    is no tensor stays the object that it is, and a tensor that is in a batch twice is there twice afterwards. Copies
    go out of pinned memory by a stream of their own, which the code's stream waits for. There is no thread.

    An error comes out where its batch would have come. A loop that is left early leaves nothing behind; the next one
    begins anew, as over the loader itself. An iterator can be gone through once: a loop over what `prefetch` has made
    of it goes on with the batch that the last one had not had yet. An iterator whose ``__iter__`` does something, as
    begin an epoch, is asked for each batch when that is due, and not one ahead.

    On the CPU the loader itself is returned.

    >>> import torch, torchturbo
    >>> batches = [{"x": torch.ones(2)}, {"x": torch.zeros(2)}]
    >>> for batch in torchturbo.prefetch(batches, "cuda" if torch.cuda.is_available() else "cpu"):
    ...     batch["x"].sum().item()
    2.0
    0.0

    Args:
        loader: a data loader, or anything that can be iterated. What is asked of the result, as its length, its
            sampler or ``set_epoch``, is asked of the loader.
        device: where the batches go; None for what work runs on here. ``"cuda"`` is the device that is current when
            the loop begins.

    Raises:
        TargetError: it cannot be iterated.
        UnsupportedHere: torch has no such device here.
    """
    if not hasattr(type(loader), "__iter__") and not hasattr(type(loader), "__getitem__"):
        raise TargetError(
            f"prefetch() goes around a data loader, or what else can be iterated, and {loader!r} cannot: give it the "
            "loader that the loop goes through"
        )
    where = _device(device)
    lane = _lane(where)  # so that what cannot be is refused before anything is fetched
    if lane is None:
        return loader
    if hasattr(type(loader), "__next__"):
        iterator: Any = loader
        once: Any = loader if isinstance(loader, Ahead) else Ahead(iterator, lane, own=False)
        return once  # type: ignore[no-any-return]
    around: Any = Prefetched(loader, where)
    return around  # type: ignore[no-any-return]


class Prefetched(wrapt.BaseObjectProxy[Any]):
    """A loader, one batch ahead on a device.

    Args:
        loader: any.
        device: where the batches go.
    """

    def __init__(self, loader: Any, device: torch.device) -> None:
        super().__init__(loader)
        self._self_device = device

    def __iter__(self) -> Iterator[Any]:
        with fetching():  # in a block that prefetches, the loader is left to this one
            source = iter(self.__wrapped__)
        return _ahead(source, self._self_device)

    def __repr__(self) -> str:
        return f"prefetch({self.__wrapped__!r}, {str(self._self_device)!r})"

    def __copy__(self) -> Any:
        return prefetch(copy.copy(self.__wrapped__), self._self_device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return prefetch(copy.deepcopy(self.__wrapped__, memo), self._self_device)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return prefetch, (self.__wrapped__, self._self_device)


def _ahead(source: Iterator[Any], device: torch.device) -> Ahead:
    lane = _lane(device)
    assert lane is not None
    return Ahead(source, lane)


def _device(device: torch.device | str | int | None) -> torch.device:
    if device is None:
        return torch.device(detect().device_type)
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedHere(f"prefetch(..., {device!r}): torch knows no such device: {in_a_line(error)}") from error


def _lane(device: torch.device) -> Lane | None:
    try:
        return lane_to(device)
    except Exception as error:
        raise UnsupportedHere(
            f"prefetch(..., {str(device)!r}): torch has no such device here ({in_a_line(error)}). Write 'cpu', which "
            "leaves the loader as it is, or leave the device out for the one that work runs on"
        ) from error
