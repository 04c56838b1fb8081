"""`accelerate`: a profile around every call of a function."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import wrapt

from torchturbo._dynamo import run_as_it_is
from torchturbo._turbo import _enter, _leave, turbo
from torchturbo.errors import TargetError
from torchturbo.profiles import Profile

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

F = TypeVar("F", bound=Callable[..., Any])


class _Bound(wrapt.BoundFunctionWrapper[..., Any]):
    """An accelerated method, bound: it copies and pickles as a bound method does."""

    def __copy__(self) -> _Bound:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return getattr(copy.deepcopy(self.__self__, memo), self.__name__)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__name__)


class _Accelerated(wrapt.FunctionWrapper[..., Any]):
    """A function with a profile around every call; in all else the function itself."""

    __bound_function_wrapper__ = _Bound

    # Dynamo takes the wrapper for what it wraps, and would go on without the profile.
    _torchdynamo_disable = True
    _torchdynamo_disable_msg = None

    def __init__(self, function: Callable[..., Any], around: turbo) -> None:
        inner = inspect.unwrap(function)
        site = 0, getattr(inner, "__code__", None) or function.__code__, -1

        def call(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            active = _enter(around, site)
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                _leave(active, error)
                raise
            _leave(active, None)
            return result

        run_as_it_is(call.__code__)
        super().__init__(function, call)

    def __copy__(self) -> _Accelerated:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Accelerated:
        return self

    def __reduce_ex__(self, protocol: Any) -> str:
        # By reference, as the function itself would be; wrapt refuses to guess.
        return str(self.__wrapped__.__qualname__)


@overload
def accelerate(target: F, /, *, profile: str | Profile = ..., strict: bool = ..., **options: Unpack[Options]) -> F: ...
@overload
def accelerate(*, profile: str | Profile = ..., strict: bool = ..., **options: Unpack[Options]) -> Callable[[F], F]: ...
def accelerate(
    target: Any = None, /, *, profile: str | Profile = "fast", strict: bool = False, **options: Unpack[Options]
) -> Any:
    """Runs every call of a function in `turbo`.

    Usable bare and with arguments; around a whole training loop, one step, or an evaluation. The result has the
    function's name, signature and documentation, and pickles by reference as the function does.

    Args:
        target: a plain function; its methods-to-be too, inside a class body.
        profile: a built-in profile by name, or a `Profile`.
        strict: raise where this machine cannot do what was asked, instead of leaving it out.
        **options: values that beat the profile's.

    Raises:
        TargetError: `target` is no plain function; says what to do instead.
        ProfileNameError: there is no such profile.
        OptionNameError: there is no such option.
        OptionValueError: an option does not take its value.

    >>> import torch
    >>> @accelerate(profile="debug")
    ... def step():
    ...     return torch.is_anomaly_enabled()
    >>> step(), torch.is_anomaly_enabled()
    (True, False)
    """
    around = turbo(profile, strict=strict, **options)
    if target is None:
        return partial(_decorate, around=around)
    return _decorate(target, around=around)


def _decorate(target: Any, *, around: turbo) -> Any:
    if isinstance(target, str | Profile):
        raise TargetError(f"accelerate({target!r}): a profile goes by keyword, accelerate(profile=...)")
    if not isinstance(target, FunctionType | _Accelerated):
        raise TargetError(
            f"accelerate takes a plain function, and got {type(target).__name__}: put `with {around!r}:` inside the "
            "function that uses it, and decorate nothing"
        )
    inner = inspect.unwrap(target)
    if inspect.isgeneratorfunction(inner) or inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise TargetError(
            f"accelerate cannot yet decorate {target.__qualname__}, whose code runs in parts, between which the "
            f"caller would run under its settings: decorate the plain functions that it calls, or put "
            f"`with {around!r}:` around code in it that neither yields nor awaits"
        )
    return _Accelerated(target, around)
