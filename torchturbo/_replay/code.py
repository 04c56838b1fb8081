"""What code is made of: the functions behind an attribute, and the global variables that it gives new values."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any


def behind(attribute: Any) -> tuple[Any, ...]:
    """What an attribute of a class stands for: itself, or the functions behind it."""
    if isinstance(attribute, staticmethod | classmethod):
        return (attribute.__func__,)
    if isinstance(attribute, property):
        return attribute.fget, attribute.fset, attribute.fdel
    if isinstance(attribute, functools.cached_property):
        return (attribute.func,)
    return (attribute,)


def defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What arguments by position are where a call leaves them out, by their names."""
    values = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    # A wrapper that takes *args has the defaults of what it wraps, and no names for them.
    unnamed = (f"default {number}" for number in range(max(0, len(values) - len(names))))
    yield from zip((*unnamed, *names[max(0, len(names) - len(values)) :]), values, strict=True)


def codes(code: CodeType) -> Iterator[CodeType]:
    """Some code, and all that is defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@functools.lru_cache(4096)
def stored(code: CodeType) -> frozenset[str]:
    """The global variables that some code gives a new value."""
    instructions = (each for part in codes(code) for each in dis.get_instructions(part))
    return frozenset(each.argval for each in instructions if each.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"))
