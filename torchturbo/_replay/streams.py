"""Random streams: where Python's, NumPy's and torch's stand, put back, and told apart."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from torchturbo._replay.bits import digest
from torchturbo.regions._devices import Queue
from torchturbo.regions._streams import streams
from torchturbo.settings._base import Cell


class Stream(NamedTuple):
    """A stream of random numbers.

    Attributes:
        name: in the user's words.
        read: where it stands.
        write: puts it there.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def global_streams(*, start: bool = True) -> Iterator[Stream]:
    """The streams of this process.

    Args:
        start: whether a GPU is started if there is one: until then its generators stand nowhere, and each start is by
            chance.
    """
    for module in (torch.cuda, torch.xpu):
        if start and module.is_available() and not module._is_in_bad_fork():
            module.init()
    for cell in streams():
        yield Stream(cell.name, cell.read, functools.partial(_put, cell))


def _put(cell: Cell, state: Any) -> None:
    cell.write(state, state)


def stream_of(name: str, value: Any) -> Stream | None:
    """The stream that an object is, or None: generators of torch, NumPy and Python.

    Args:
        name: what it is called.
        value: any object.
    """
    if isinstance(value, torch.Generator):
        return Stream(name, value.get_state, value.set_state)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return Stream(name, value.getstate, value.setstate)
    if type(value).__module__.startswith("numpy.random"):
        if hasattr(value, "bit_generator"):
            bits = value.bit_generator
            return Stream(name, lambda: bits.state, lambda state: setattr(bits, "state", state))
        if hasattr(value, "get_state"):
            return Stream(name, lambda: value.get_state(legacy=False), value.set_state)
    return None


def told(state: Any) -> str:
    """A short text that differs where two states of a stream do.

    Args:
        state: what a stream's `read` gave.
    """
    return hashlib.sha256(repr(_plain(state)).encode()).hexdigest()[:16]


def _plain(state: Any) -> Any:
    if isinstance(state, Queue):
        return "no device has started"
    if isinstance(state, torch.Tensor):
        return digest(state)
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(part) for part in state]
    if hasattr(state, "data") and hasattr(state, "__slots__"):
        return state.data
    return state.tobytes() if hasattr(state, "tobytes") else state


def standing(streams: Iterable[Stream]) -> dict[str, str]:
    """Where streams stand, by name, as texts that differ where they do.

    Args:
        streams: those to look at.
    """
    return {stream.name: told(stream.read()) for stream in streams}
