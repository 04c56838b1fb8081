"""What regions compile, and what is known of it: the modules and functions, and what a thread is doing with them."""

from __future__ import annotations

import builtins
import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch


class Asked(NamedTuple):
    """What a thread's region asks for.

    Attributes:
        options: a mode of torch.compile, or its keywords; None where nothing is to be compiled.
        strict: whether what cannot be compiled is an error.
    """

    options: Any
    strict: bool


OFF = Asked(None, False)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What has been compiled for one module or function.

    Attributes:
        name: the module's class, or the function.
        how: the mode, or the keywords, of torch.compile.
        count: compilations, failed ones too; several where a graph breaks or what is guarded on changes. Those of
            several threads at one time count as one.
        seconds: what they took together.
        reason: why some of it runs eagerly, or None.
    """

    name: str
    how: str
    count: int
    seconds: float
    reason: str | None


class Record:
    """What is remembered of a target, also when it is gone.

    Attributes:
        name: the module's class, or the function.
        how: the mode, or the keywords, of torch.compile.
        count: its compilations.
        seconds: what they took.
        reason: why some of it runs eagerly.
    """

    __slots__ = ("count", "how", "name", "reason", "seconds")

    def __init__(self, name: str, how: str) -> None:
        self.name = name
        self.how = how
        self.count = 0
        self.seconds = 0.0
        self.reason: str | None = None


AT_MOST = 256
"""Records that are kept: more than a process has models, and a bound where modules are made without end."""
_records: deque[Record] = deque(maxlen=AT_MOST)


def compilations() -> tuple[Compiled, ...]:
    """What regions have compiled in this process, oldest first; the last 256 modules and functions."""
    return tuple(Compiled(r.name, r.how, r.count, r.seconds, r.reason) for r in tuple(_records) if r.count)


class Target:
    """A module or function that is run compiled.

    Attributes:
        record: what is told of it.
        eager: runs it as it is; ``eager(first, args, kwargs)``, as `compiled`.
        compiled: runs it compiled.
        whole: whether a break in the graph is an error (``fullgraph=True``).
        given_up: whether it runs as it is from now on.
        told: what has been warned of.
    """

    __slots__ = ("compiled", "eager", "given_up", "record", "told", "whole")

    def __init__(self, record: Record, eager: Callable[..., Any], keywords: dict[str, Any]) -> None:
        self.record = record
        self.eager = eager
        self.compiled: Callable[..., Any] = torch.compile(eager, **keywords)
        self.whole = bool(keywords.get("fullgraph"))
        self.given_up = False
        self.told: set[str] = set()


def of_module(first: Any, args: Any, kwargs: Any) -> Any:
    """Calls a module past its `__call__`, with its hooks."""
    return first._call_impl(*args, **kwargs)


def of_function(first: Any, args: Any, kwargs: Any) -> Any:
    """Calls a function."""
    return first(*args, **kwargs)


def _of_method(first: Any, args: Any, kwargs: Any) -> Any:
    function, owner = first
    return function(owner, *args, **kwargs)


def taken_apart(function: Any) -> tuple[Callable[..., Any], Any]:
    """What runs a function, and what that is given as `first`.

    A bound method is made anew each time that it is looked up, and torch 2.8 would take each for another function.
    """
    if isinstance(function, MethodType):
        return _of_method, (function.__func__, function.__self__)
    return of_function, function


_number = itertools.count(1)


def new_target(name: str, options: Any, template: Callable[..., Any]) -> Target:
    """A target with code of its own, in which the module or function is an argument.

    Dynamo counts compilations by code, and remembers by its name which sizes vary: two models that shared code would
    use up each other's recompilations. And what is an argument is not kept alive by what is compiled.

    Args:
        name: of the module's class or the function.
        options: a mode of torch.compile, or its keywords.
        template: what runs it.
    """
    own = f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_{next(_number)}"
    code = template.__code__.replace(co_name=own, co_qualname=own)
    # Dynamo leaves what it has compiled among the globals of the code.
    eager = FunctionType(code, {"__name__": __name__, "__builtins__": builtins}, own)
    keywords = {"mode": options} if isinstance(options, str) else {key: _plain(value) for key, value in options.items()}
    target = Target(Record(name, str(options)), eager, {} if keywords == {"mode": "default"} else keywords)
    _records.append(target.record)
    return target


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class Here(threading.local):
    """What a thread's region needs to know.

    Attributes:
        asked: what the region asks for.
        inside: whether an outermost module or function is running, within which nothing is compiled anew.
        target: the one that is running compiled.
        untold: warnings to be given once it has ended.
        runs: outermost modules and functions that have run compiled.
    """

    def __init__(self) -> None:
        self.asked = OFF
        self.inside = False
        self.target: Target | None = None
        self.untold: list[str] = []
        self.runs = 0


here = Here()
