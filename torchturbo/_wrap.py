"""What is called, with a block around every call: functions as functions, all else behind a proxy that is like it.

A function becomes a function: a proxy around it would take three times as long to call. What has no code of its own
(partials, builtins, bound methods, objects with ``__call__``) and what runs in turns (generators, coroutines) goes
behind one of wrapt's proxies, which answers every question as what it stands for does.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

import wrapt

from torchturbo._active import Site
from torchturbo._dynamo import run_as_it_is, untraced
from torchturbo._turbo import _enter, _leave, _leave_failed, turbo
from torchturbo._turns import Make, Turns, async_generator, coroutine, generator
from torchturbo.errors import TargetError
from torchturbo.regions.compiling import Function, call_function

Run = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""Calls a function in a block: ``run(function, instance, args, kwargs)``, as wrapt has it."""

_IN_TURNS: tuple[tuple[Callable[[Any], bool], Callable[[Make, Turns], Any]], ...] = (
    (inspect.isgeneratorfunction, generator),
    (inspect.iscoroutinefunction, coroutine),
    (inspect.isasyncgenfunction, async_generator),
)


def site_of(target: Any) -> Site:
    """Where the code of a target is; of one that has none, who asked for it to be accelerated."""
    for candidate in (inspect.unwrap(target), target, _called(target)):
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return 0, code, -1
    frame = sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] in ("torchturbo", "wrapt"):
        frame = frame.f_back
    return 0, frame.f_code, frame.f_lasti


def _called(target: Any) -> Any:
    """What a call of an object runs."""
    return type(target).__call__


def refuse_script(*_: object) -> Any:
    """What torch.jit.script asks what it is given for: TorchScript would run it without the profile.

    Raises:
        TargetError: always.
    """
    raise TargetError(
        "torch.jit.script cannot compile what is accelerated: TorchScript does not run Python, so the profile would be "
        "lost without a word. Script it first and accelerate the function that calls it, or use torch.compile"
    )


def in_turns(target: Any) -> bool:
    """Whether the code of a target runs in turns."""
    return _made_in_turns(target) is not None


def _made_in_turns(target: Any) -> Callable[[Make, Turns], Any] | None:
    """How calls of a target become calls in turns, or None for one that returns when it is done."""
    for is_one, made in _IN_TURNS:
        if is_one(target) or is_one(_called(target)):
            return made
    inner = inspect.unwrap(target)
    if any(is_one(inner) for is_one, _ in _IN_TURNS):
        raise TargetError(
            f"accelerate is above a decorator that makes something else of {inner.__qualname__}, whose code runs in "
            f"parts: put accelerate beneath it, right above `def {inner.__name__}`"
        )
    return None


def running(target: Any, around: turbo) -> Run:
    """How `target` is called in a block of `around`.

    Raises:
        TargetError: it is a decorated generator or coroutine, and no longer one itself.
    """
    site = site_of(target)
    made = _made_in_turns(target)
    known = Function() if around.compiles else None

    def call(function: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        active = _enter(around, site)
        try:
            result = function(*args, **kwargs) if known is None else call_function(function, args, kwargs, known)
            _leave(active, None)
        except BaseException as error:
            _leave_failed(active, error)
            raise
        return result

    def call_in_turns(function: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert made is not None
        return made(functools.partial(function, *args, **kwargs), Turns(around, site))

    run = call if made is None else call_in_turns
    run_as_it_is(run.__code__)
    return run


class _Bound(wrapt.BoundFunctionWrapper[..., Any]):
    """An accelerated method, bound: it copies and pickles as a bound method does."""

    def __copy__(self) -> _Bound:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return getattr(copy.deepcopy(self.__self__, memo), self.__name__)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__name__)


class Proxy(wrapt.FunctionWrapper[..., Any]):
    """Something that can be called, with a block around every call; in all else that thing itself.

    Args:
        target: what is called.
        around: the block.
    """

    __bound_function_wrapper__ = _Bound
    __prepare_scriptable__ = refuse_script

    # Dynamo takes the wrapper for what it wraps, and would go on without the profile.
    _torchdynamo_disable = True
    _torchdynamo_disable_msg = None

    def __init__(self, target: Callable[..., Any], around: turbo) -> None:
        super().__init__(target, running(target, around))
        self._self_around = around

    def __copy__(self) -> Proxy:
        return self._self_again(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Proxy:
        return self._self_again(copy.deepcopy(self.__wrapped__, memo))

    def _self_again(self, target: Any) -> Proxy:
        # What copies as itself (functions do) is itself here too.
        return self if target is self.__wrapped__ else type(self)(target, self._self_around)

    def __reduce_ex__(self, protocol: Any) -> Any:
        name = getattr(self.__wrapped__, "__qualname__", None)
        if name is not None and _found(getattr(self.__wrapped__, "__module__", None), name) is self:
            return name
        return type(self), (self.__wrapped__, self._self_around)


def _found(module: str | None, name: str) -> Any:
    """What stands under a name in a module."""
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def compiling(function: Callable[..., Any]) -> Callable[..., Any]:
    """What calls a function in a block that compiles: itself compiled, if it calls no module and trains none."""
    known = Function()

    def call(*args: Any, **kwargs: Any) -> Any:
        return call_function(function, args, kwargs, known)

    return untraced(call)


def wrapped(target: Any, around: turbo) -> Any:
    """`target` with a block around every call.

    Args:
        target: anything that can be called, no class and no module.
        around: the block.

    Raises:
        TargetError: it is a decorated generator or coroutine, and no longer one itself.
    """
    if isinstance(target, FunctionType) and not in_turns(target):
        return _function(target, around)
    return Proxy(target, around)


def _function(function: FunctionType, around: turbo) -> FunctionType:
    site = site_of(function)
    run = compiling(function) if around.compiles else function

    def call(*args: Any, **kwargs: Any) -> Any:
        active = _enter(around, site)
        try:
            result = run(*args, **kwargs)
            _leave(active, None)
        except BaseException as error:
            _leave_failed(active, error)
            raise
        return result

    made = like(call, function)
    AROUND[made] = around
    return made


AROUND: weakref.WeakKeyDictionary[FunctionType, turbo] = weakref.WeakKeyDictionary()
"""The block around each plain function that has one."""


def like(call: Any, function: Any) -> FunctionType:
    """`call`, a function of ours, answering every question as `function` does."""
    functools.update_wrapper(call, function)
    for name in [name for name in vars(call) if name.startswith("_torchdynamo")]:
        # torch.compile left it on the function, to find what is beneath; it would pass us by.
        delattr(call, name)
    call.__defaults__, call.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    with suppress(ValueError, TypeError, NameError):
        # For those that ask without looking at __wrapped__ (inspect.getfullargspec).
        call.__signature__ = inspect.signature(function)
    call.__prepare_scriptable__ = refuse_script
    made: FunctionType = untraced(call)
    return made
