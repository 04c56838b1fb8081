"""Which functions are compiled themselves: those that call no module, no backward and no optimizer.

A train or evaluation function is not: the modules that it calls are, each by itself. What a function does is seen in
its code and what that refers to, and then in its first call, which runs as it is.
"""

from __future__ import annotations

import dis
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from random import Random
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo.errors import CompileWarning
from torchturbo.regions._calls import Args, Kwargs, module_calls
from torchturbo.regions._compiled import run
from torchturbo.regions._compiler import outside
from torchturbo.regions._others import left_alone
from torchturbo.regions._targets import Target, here, new_target, taken_apart

_UNFIT = frozenset(("backward", "step", "zero_grad", "run_backward", "numpy"))
"""Names that code uses which trains, or leaves torch, and code to be compiled whole does not."""
_TURNS = "its turns"
_RUNS_IN_PARTS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Function:
    """What is known of one decorated function.

    Attributes:
        pure: whether it is compiled itself; None while nobody knows.
        targets: what is compiled, by what regions ask for.
    """

    __slots__ = ("pure", "targets")

    def __init__(self) -> None:
        self.pure: bool | None = None
        self.targets: dict[object, Target] = {}


@untraced
def call_function(function: Callable[..., Any], args: Args, kwargs: Kwargs, state: Function) -> Any:
    """Calls a function, compiled where this thread has a region open and it is pure; else as it is.

    Args:
        function: what to call.
        args: what to call it with.
        kwargs: what to call it with by name.
        state: what is known of it, kept by the caller for as long as the function.
    """
    now = here
    asked = now.asked
    if asked.options is None or now.inside or state.pure is False or left_alone():
        return function(*args, **kwargs)
    if state.pure is None:
        unknown = _unknown(function, args, kwargs)
        if unknown is None:
            return _watched(function, args, kwargs, state)
        state.pure = False
        runs = now.runs
        result = function(*args, **kwargs)
        if now.runs == runs and unknown is not _TURNS:
            warnings.warn(
                f"{_name(function)} is not compiled: it has called no module, and is not compiled itself because of "
                f"{unknown}, of which nobody knows that it comes to the same compiled",
                CompileWarning,
                stacklevel=outside(),
            )
        return result
    how, first = taken_apart(function)
    target = state.targets.get(asked)
    if target is None:
        target = state.targets[asked] = new_target(_name(function), asked.options, how)
    return run(now, target, how, first, args, kwargs)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__)).replace("<locals>.", "")


def _unknown(function: Callable[..., Any], args: Args, kwargs: Kwargs) -> str | None:
    """What a function reaches that need not come to the same compiled, or None: nobody guesses.

    Random numbers that are not torch's, clocks, files and caches would be frozen in, or drawn from elsewhere.
    """
    inner = function.__func__ if isinstance(function, MethodType) else function
    if type(inner) is not FunctionType:
        return f"what it is, {type(inner).__name__}"
    seen: set[int] = set()
    if isinstance(function, MethodType):
        args = (function.__self__, *args)
    given = {f"argument {place}": value for place, value in enumerate(args)} | kwargs
    if inner.__code__.co_varnames[:1] in (("self",), ("cls",)) and args:
        # Of an object that a method is given, what the method's code names.
        del given["argument 0"]
        for owner in (args[0], *type(args[0]).__mro__):
            has = getattr(owner, "__dict__", {})
            given |= {f"self.{name}": has[name] for name in _names(inner) if name in has}
    return _first_unknown(inner, seen) or next(
        (name for name, value in given.items() if not _is_plain(value, seen)), None
    )


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names(function: FunctionType) -> set[str]:
    return {name for code in _codes(function.__code__) for name in code.co_names}


def _first_unknown(function: FunctionType, seen: set[int]) -> str | None:
    names = _names(function)
    if function.__code__.co_flags & _RUNS_IN_PARTS:
        return _TURNS
    if names & _UNFIT:
        return min(names & _UNFIT)
    if any(each.opname == "IMPORT_NAME" for code in _codes(function.__code__) for each in dis.get_instructions(code)):
        return "an import in it"
    reached = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    reached |= {f"default {place}": value for place, value in enumerate(function.__defaults__ or ())}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            reached[name] = cell.cell_contents
        except ValueError:
            continue  # empty: the name has no value yet
    return _first(reached, seen)


def _first(values: Mapping[str, object], seen: set[int]) -> str | None:
    return next((name for name, value in values.items() if not _is_plain(value, seen)), None)


_CONSTANTS = (int, float, complex, str, bytes, slice, Enum, type(None), type(...))
_TORCHS = (torch.Tensor, torch.dtype, torch.device, torch.layout)
_HOMES = frozenset(("torch", "math", "operator", "itertools", "functools", "typing", "collections", "builtins", "enum"))
"""Whose functions are what they say, and have no state that counts but torch's own."""


def _is_plain(value: Any, seen: set[int]) -> bool:
    if isinstance(value, _CONSTANTS + _TORCHS) or id(value) in seen:
        return True
    seen.add(id(value))
    if isinstance(value, list | tuple | set | frozenset):
        return len(value) <= 100 and all(_is_plain(part, seen) for part in value)
    if isinstance(value, dict):
        return len(value) <= 100 and all(_is_plain(part, seen) for part in value.values())
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] in _HOMES
    if isinstance(value, type):
        home = value.__module__.partition(".")[0]
        return (home in _HOMES or issubclass(value, Exception)) and not issubclass(
            value, torch.nn.Module | torch.optim.Optimizer
        )
    if not isinstance(value, FunctionType | BuiltinFunctionType):
        return False
    home = str(value.__module__).partition(".")[0]
    if home in _HOMES and (isinstance(value, FunctionType) or not isinstance(value.__self__, Random)):
        return True
    return type(value) is FunctionType and _first_unknown(value, seen) is None


_CALLS_OF_MODULES = {*module_calls.codes, torch.nn.Module._call_impl.__code__}


@untraced
def _watched(function: Callable[..., Any], args: Args, kwargs: Kwargs, state: Function) -> Any:
    """The first call, as it is, under Python's profiling, which sees every call of this thread and of no other."""
    if sys.getprofile() is not None:
        # Somebody profiles this thread: they go on, and the next call will tell.
        return function(*args, **kwargs)
    trains = False

    def heed(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal trains
        if event == "call":
            home = frame.f_globals.get("__name__", "")
            trains = frame.f_code in _CALLS_OF_MODULES or home == "torch.optim.optimizer" or "torch._dynamo" in home
        elif event == "c_call":
            trains = getattr(argument, "__name__", "") == "run_backward"
        if trains:
            sys.setprofile(None)

    sys.setprofile(heed)
    try:
        result = function(*args, **kwargs)
    except BaseException:
        sys.setprofile(None)
        raise
    sys.setprofile(None)
    state.pure = not trains
    return result
