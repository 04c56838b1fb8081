"""`accelerate`: a profile around every call of a function, a method, a module, or whatever else can be called."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from torchturbo._float8 import check, config_of, convert, note, put_back
from torchturbo._modules import OutputDtype, accelerated_class, accelerated_module, parsed_dtype, restored
from torchturbo._sources import UNNAMED, sources
from torchturbo._turbo import turbo
from torchturbo._wrap import AROUND, in_turns, like, wrapped
from torchturbo.errors import HardwareWarning, OptionValueError, TargetError
from torchturbo.hardware import detect
from torchturbo.profiles import Profile
from torchturbo.regions._scaler import Scaler

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

_ABSENT: Any = object()
OnOom = Literal["split", "raise"]
T = TypeVar("T", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any] | property")
M = TypeVar("M", bound=nn.Module | type[nn.Module])


@overload
def accelerate(
    target: T,
    /,
    *,
    profile: str | Profile = ...,
    strict: bool = ...,
    output_dtype: OutputDtype = ...,
    on_oom: OnOom | None = ...,
    float8: bool | str | object = ...,
    **options: Unpack[Options],
) -> T: ...
@overload
def accelerate(
    *,
    profile: str | Profile = ...,
    strict: bool = ...,
    output_dtype: OutputDtype = ...,
    on_oom: OnOom | None = ...,
    float8: bool | str | object = ...,
    **options: Unpack[Options],
) -> Callable[[T], T]: ...
def accelerate(
    target: Any = _ABSENT,
    /,
    *,
    profile: str | Profile = UNNAMED,
    strict: bool = False,
    output_dtype: OutputDtype = "input",
    on_oom: OnOom | None = None,
    float8: bool | str | object = False,
    **options: Unpack[Options],
) -> Any:
    """Runs every call of a target in `turbo`, and returns the same kind of thing.

    Usable bare and with arguments. A function, method, class method, static method or property comes back as one, with
    the same name, signature and documentation. A generator or a coroutine runs under the profile in its own turns: what
    runs between them sees nothing of it. A module is itself: the same object, with a block around its ``forward``; so
    is a class of modules. `restore` takes it off again.

    Args:
        target: what is called. Anything that can be called will do, but for classes that are no modules.
        profile: a built-in profile by name, or one that a file has made, or a `Profile`. Without it, the one that the
            file names, or "fast".
        strict: raise where this machine cannot do what was asked, instead of leaving it out.
        output_dtype: what a module's outputs become where autocast has made them half precision: ``"input"``, as its
            widest float input (or, without one, its parameters); a dtype; or None, as they are. For modules alone.
        on_oom: what happens where a step, ``def step(model, batch, optimizer)``, runs out of memory. ``"split"``: it is
            put back, and taken in two parts of its batch, or more, with the gradients of the whole. ``"raise"``: the
            error says what used the memory. None: torch's error. For functions and methods alone.
        float8: multiply in float8 in a module's linear layers, by torchao, until `restore`: True, the name of one of
            torchao's recipes, or its `Float8LinearConfig`. For modules alone. Left out with a `HardwareWarning` where
            the machine has no float8.
        **options: values that beat the profile's.

    Raises:
        MissingPackageError: `float8`, and torchao is not installed.
        UnsupportedHere: `float8` and `strict`, and the machine has no float8.
        TargetError: `target` cannot be decorated; says what to decorate instead.
        ProfileNameError: there is no such profile.
        OptionNameError: there is no such option.
        OptionValueError: an option does not take its value.
        ConfigError: a pyproject.toml or torchturbo.toml here cannot be read.

    >>> import torch
    >>> @accelerate(profile="debug")
    ... def step():
    ...     return torch.is_anomaly_enabled()
    >>> step(), torch.is_anomaly_enabled()
    (True, False)
    """
    around = turbo(profile, strict=strict, **options)
    output_dtype = parsed_dtype(output_dtype)
    if on_oom not in (None, "split", "raise"):
        raise OptionValueError(f"on_oom={on_oom!r}: expected one of 'split', 'raise', None")
    if float8 is not False:
        return _in_float8(around, output_dtype, float8, on_oom, target)
    if target is _ABSENT:
        return partial(_decorated, around=around, output_dtype=output_dtype, on_oom=on_oom)
    return _decorated(target, around, output_dtype, on_oom)


def _in_float8(around: turbo, output_dtype: OutputDtype, float8: object, on_oom: OnOom | None, target: Any) -> Any:
    """What a module becomes whose linear layers are to multiply in float8."""
    if target is _ABSENT:
        return partial(_in_float8, around, output_dtype, float8, on_oom)
    if not isinstance(target, nn.Module):
        raise TargetError(f"float8 is for modules, whose layers it converts, and this is {_kind(target)}")
    if sources().disabled is not None:
        return target
    config = config_of(float8)
    reason = check(target, config, detect(), strict=around._strict)
    if reason is not None:
        warnings.warn(f"float8 is left out here: {reason}", HardwareWarning, stacklevel=3)
    _decorated(target, around, output_dtype, on_oom)
    if reason is None:
        convert(target, config)
    note(target, float8, config, reason)
    return target


def restore(target: M) -> M:
    """Takes off a module, or a class of modules, all that `accelerate` has put on it, and returns it.

    Its children stay as they are, but for layers that compute in float8, which do so no more. Nothing happens to one
    that was never accelerated.

    Args:
        target: a module, or a class of modules.

    Raises:
        TargetError: it is neither, or somebody has wrapped its ``forward`` since.

    >>> model = accelerate(nn.Linear(2, 2))
    >>> restore(model) is model, "forward" in vars(model)
    (True, False)
    """
    if not isinstance(target, nn.Module) and not _is_module_class(target):
        raise TargetError(
            f"restore takes a module or a class of modules, and got {_kind(target)}; a function is as it was before, "
            "and is the __wrapped__ of what accelerate has made of it"
        )
    restored(target)
    if isinstance(target, nn.Module):
        put_back(target)
    return target


def scaler_of(target: Any) -> Scaler | None:
    """The gradient scaling that lives with a target over all its calls, or None where nothing is scaled.

    For checkpoints: its ``state_dict()`` is that of a `torch.amp.GradScaler`.

    Args:
        target: a `turbo` object, or what `accelerate` has returned.

    Raises:
        TargetError: it is neither.

    >>> @accelerate(autocast="fp16")
    ... def train(): ...
    >>> scaler_of(train).get_scale()
    65536.0
    """
    around = _around(target)
    if around is None:
        if sources().disabled is not None:
            return None
        raise TargetError(f"scaler_of takes a turbo object or what accelerate has returned, and got {_kind(target)}")
    return around.scaler


def _around(target: Any) -> turbo | None:
    """The outermost block around a target."""
    if isinstance(target, nn.Module) or _is_module_class(target):
        target = target.forward
    while target is not None and not isinstance(target, turbo):
        if isinstance(target, property):
            target = target.fget
        elif isinstance(target, MethodType):
            target = target.__func__
        elif isinstance(target, functools.cached_property | functools.partialmethod):
            target = getattr(target, "func", None)
        elif isinstance(target, FunctionType) and target in AROUND:
            target = AROUND[target]
        else:
            block = getattr(target, "_self_around", None)
            target = getattr(target, "__wrapped__", None) if block is None else block
    return target


def _is_module_class(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, nn.Module)


def _kind(target: Any) -> str:
    return f"the class {target.__name__}" if isinstance(target, type) else type(target).__name__


def _decorated(target: Any, around: turbo, output_dtype: OutputDtype, on_oom: OnOom | None = None) -> Any:
    if sources().disabled is not None:
        return target
    if on_oom is not None:
        return _heeding(target, around, output_dtype, on_oom)
    if isinstance(target, nn.Module):
        accelerated_module(target, around, output_dtype)
        return target
    if _is_module_class(target):
        accelerated_class(target, around, output_dtype)
        return target
    if output_dtype != "input":
        raise TargetError(f"output_dtype is for modules and their classes, and this is {_kind(target)}")
    # Whatever holds a function for a class, and hands it out bound.
    if isinstance(target, staticmethod | classmethod):
        return type(target)(_decorated(target.__func__, around, output_dtype))
    if isinstance(target, property) and target.fget is not None:
        return target.getter(_decorated(target.fget, around, output_dtype))
    if isinstance(target, functools.cached_property):
        return functools.cached_property(_decorated(target.func, around, output_dtype))
    if isinstance(target, functools.partialmethod):
        return functools.partialmethod(_decorated(target.func, around, output_dtype), *target.args, **target.keywords)
    _refuse(target, around)
    return wrapped(target, around)


def _heeding(target: Any, around: turbo, output_dtype: OutputDtype, on_oom: OnOom) -> Any:
    """A step that heeds what happens where memory runs out."""
    if isinstance(target, staticmethod | classmethod):
        return type(target)(_heeding(target.__func__, around, output_dtype, on_oom))
    if not isinstance(target, FunctionType) or in_turns(target):
        kind = "a generator or a coroutine" if callable(target) and in_turns(target) else _kind(target)
        raise TargetError(
            f"on_oom={on_oom!r} is for a function or a method that takes one step with its batch, "
            f"def step(model, batch, optimizer), and this is {kind}: decorate that function where it is defined"
        )
    if (waits := {**around._profile, **dict(around._overrides)}.get("accumulate", 1)) != 1:
        raise TargetError(
            f"on_oom={on_oom!r} and accumulate={waits!r} do not go together around one step: leave accumulate= out, "
            "and on_oom='split' accumulates where memory runs out"
        )
    # It looks into what is accelerated, as all that is put back does.
    from torchturbo._oom import stepping

    made = like(stepping(_decorated(target, around, output_dtype), target, around, on_oom), target)
    AROUND[made] = around
    return made


def _refuse(target: Any, around: turbo) -> None:
    """Raises for what cannot be decorated, with what to decorate instead."""
    name = _kind(target)
    instead = None
    if isinstance(target, str | Profile):
        raise TargetError(f"accelerate({target!r}): a profile goes by keyword, accelerate(profile=...)")
    if isinstance(target, Optimizer | LRScheduler):
        instead = f"the function that calls its step(), or put `with {around!r}:` around the loop that does"
    elif isinstance(target, DataLoader):
        instead = f"the function that loops over it, or put `with {around!r}:` around the loop"
    elif isinstance(target, type):
        instead = "those of its methods that compute something; only classes of torch.nn.Module are accelerated whole"
    elif isinstance(target, turbo):
        instead = f"the function: accelerate(function, profile=...) does what `with {around!r}:` inside it does"
    elif inspect.isawaitable(target) or inspect.isgenerator(target) or inspect.isasyncgen(target):
        raise TargetError(f"accelerate cannot decorate {name}, which has been called already: decorate the function")
    elif target is None:
        raise TargetError("accelerate was given None: does what was to make the target return it?")
    elif not callable(target):
        instead = "a function, a method, a module or a class of modules"
    if instead is not None:
        raise TargetError(f"accelerate cannot decorate {name}: decorate {instead}")
