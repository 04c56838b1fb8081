"""Which functions are compiled themselves: those that call no module, no backward and no optimizer.

A train or evaluation function is not: the modules that it calls are, each by itself. What a function does is seen in
its code and what that refers to, and then in its first call, which runs as it is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo.regions import _compiled
from torchturbo.regions._compiled import Args, Kwargs, left_alone, run
from torchturbo.regions._targets import Target, here, new_target, taken_apart

_TRAINING = frozenset(("backward", "step", "zero_grad", "run_backward"))
"""Names that training code uses, and code to be compiled whole does not."""
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
        if _looks_pure(function, args, kwargs):
            return _watched(function, args, kwargs, state)
        state.pure = False
        return function(*args, **kwargs)
    how, first = taken_apart(function)
    target = state.targets.get(asked)
    if target is None:
        name = getattr(function, "__qualname__", type(function).__name__).replace("<locals>.", "")
        target = state.targets[asked] = new_target(name, asked.options, how)
    return run(now, target, how, first, args, kwargs)


def _looks_pure(function: Callable[..., Any], args: Args, kwargs: Kwargs) -> bool:
    bound = function.__self__ if isinstance(function, MethodType) else None
    inner = inspect.unwrap(function.__func__ if isinstance(function, MethodType) else function)
    if not isinstance(inner, FunctionType) or inner.__code__.co_flags & _RUNS_IN_PARTS:
        return False
    codes = list(_codes(inner.__code__))
    names = {name for code in codes for name in code.co_names}
    if names & _TRAINING:
        return False
    reached = [*args, *kwargs.values(), *(inner.__globals__[name] for name in names if name in inner.__globals__)]
    for cell in inner.__closure__ or ():
        try:
            reached.append(cell.cell_contents)
        except ValueError:
            continue  # empty: the name has no value yet
    for owner in (bound, *args[:1]):
        reached += [value for name, value in getattr(owner, "__dict__", {}).items() if name in names]
    return not any(_trains(value) for value in reached)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _trains(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_trains(its) for its in value[:100])
    if isinstance(value, dict):
        return any(_trains(its) for its in list(value.values())[:100])
    return isinstance(value, torch.nn.Module | torch.optim.Optimizer)


_CALLS_OF_MODULES = {_compiled._CODE, _compiled._FUNCTION.__code__, torch.nn.Module._call_impl.__code__}


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
