"""What a module's forward reads beside what it is called with, so that it can be seen whether it has changed.

A second forward of the same module gives the same only from the same state. So what stands in its attributes and in
those of the modules in it is noted: which things they are, how often tensors have been written to, what containers
hold, and where generators of random numbers are.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_PLAIN = (bool, int, float, complex, str, bytes)
_SWITCHES = ("gradient_checkpointing", "_gradient_checkpointing_func")
"""What models of Hugging Face are told to checkpoint by: no part of what they compute."""


class Flag(NamedTuple):
    """Something that may be written back for a while: whether a module trains, or a tensor wants gradients."""

    of: nn.Module | Tensor
    was: bool


class _Note(NamedTuple):
    """Something that stands in an attribute.

    Attributes:
        key: where, if it has a name there.
        value: it.
        version: how often it has been written to, of a tensor.
        wanted: whether it wants gradients.
    """

    key: str
    value: Any
    version: int = 0
    wanted: bool = False


class State:
    """What a module's forward reads, at one moment.

    Args:
        module: the module.
    """

    __slots__ = ("_module", "_noted", "_python")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._noted = list(_of(module))
        self._python = _generators()

    def changed(self, *, later: bool = False) -> str | None:
        """What is other than it was, in words, or None.

        Args:
            later: whether a forward is to begin, before which anybody may have drawn random numbers, and not to end.
        """
        now = list(_of(self._module))
        if len(now) != len(self._noted):
            return "the attributes that it has"
        for (module, name, was, inside), (its, its_name, value, now_inside) in zip(self._noted, now, strict=True):
            if module is not its or name != its_name:
                return "the attributes that it has"
            if name == "training" and later:
                continue
            if not _is_equal(was, value) or not _alike(inside, now_inside):
                return f"{type(module).__name__}.{_word(name, inside, now_inside)}"
        if not later:
            now_drawn = _generators()
            # NumPy may have been imported meanwhile, by torch too.
            if any(now_drawn.get(name) != its for name, its in self._python.items()):
                return "the random numbers of Python's random or of NumPy"
        return None

    def flags(self) -> list[Flag]:
        """What was noted of whether modules train, and tensors want gradients, where that is otherwise now."""
        found: list[Flag] = []
        for module, name, was, inside in self._noted:
            if name == "training" and module.training is not was:
                found.append(Flag(module, was))
            elif name in ("_parameters", "_buffers"):
                found += [
                    Flag(note.value, note.wanted)
                    for note in inside
                    if isinstance(note.value, Tensor)
                    and note.value.is_leaf
                    and note.value.requires_grad is not note.wanted
                ]
        return found


def _of(module: nn.Module) -> Iterator[tuple[nn.Module, str, Any, Any]]:
    for each in module.modules():
        # What a norm counts while it trains has no part in what it gives.
        counts = isinstance(each, _NormBase) and each.training
        for name, value in vars(each).items():
            if name in _SWITCHES or (name == "_buffers" and counts):
                continue
            yield each, name, value, _inside(value)


def _inside(value: Any) -> Any:
    """What stands in a value, as far as it can be written to in place."""
    if isinstance(value, Tensor):
        return [_note("", value)]
    if isinstance(value, Mapping):
        return [_note(str(key), its) for key, its in value.items()]
    if isinstance(value, list | deque):
        return [_note("", its) for its in value]
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, torch.Generator):
        return value.get_state()
    return None


def _note(key: str, value: Any) -> _Note:
    if isinstance(value, Tensor):
        return _Note(key, value, -1 if value.is_inference() else value._version, value.requires_grad)
    return _Note(key, value)


def _alike(was: Any, now: Any) -> bool:
    if isinstance(was, Tensor):
        return isinstance(now, Tensor) and torch.equal(was, now)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(_same, was, now))
    return bool(was == now)


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, _Note):
        # Whether gradients are wanted can be put back.
        return was.key == now.key and _is_equal(was.value, now.value) and was.version == now.version
    return _is_equal(was, now)


def _is_equal(was: Any, now: Any) -> bool:
    if was is now:
        return True
    if type(was) is not type(now):
        return False
    if isinstance(was, tuple):
        return len(was) == len(now) and all(map(_is_equal, was, now))
    return isinstance(was, _PLAIN) and bool(was == now)


def _word(name: str, was: Any, now: Any) -> str:
    """The attribute's name; of torch's own dictionaries, the name of what is in it."""
    if name in ("_parameters", "_buffers", "_modules") and len(was) == len(now):
        return next((its.key for its, other in zip(was, now, strict=True) if not _same(its, other)), name)
    return name


def _generators() -> dict[str, Any]:
    """Where the generators of Python and NumPy are; torch's own are looked after by its checkpoint."""
    found: dict[str, Any] = {"random": random.getstate()}
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        _, keys, place, *_ = numpy.random.get_state()
        found["numpy"] = place, keys.tobytes()
    return found
