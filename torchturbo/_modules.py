"""Modules and their classes, with a block around ``forward``: the same object, the same class, the same keys.

An instance is given a ``forward`` of its own, a class another one; nothing else of them changes. Outputs come back in
the float type of the inputs, so that code written for float32 goes on working.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, Literal

import torch
from torch import nn

from torchturbo._dynamo import untraced
from torchturbo._outputs import as_dtype, as_inputs
from torchturbo._turbo import _enter, _leave, _leave_failed, turbo
from torchturbo._wrap import AROUND, in_turns, like, refuse_script, site_of
from torchturbo.errors import OptionValueError, TargetError
from torchturbo.regions._checkpointing import as_outermost
from torchturbo.regions._others import has_its_own, is_fx_tracing
from torchturbo.regions.autocast import dtype_put_on
from torchturbo.regions.compiling import call_compiled, forget

OutputDtype = Literal["input"] | torch.dtype | None
"""What half precision outputs of an accelerated module become: as the inputs, a dtype, or None for what they are."""

_CHANGED = ("forward", "__prepare_scriptable__")
"""The attributes that a module or a class is given; torch.jit.script calls the second before all else."""
_BEFORE = "__torchturbo_before__"


def parsed_dtype(value: Any) -> OutputDtype:
    """What `output_dtype` is, in its one spelling.

    Raises:
        OptionValueError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, str) and value == "input":
        return "input"
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    raise OptionValueError(
        f"output_dtype={value!r}: expected 'input', a floating-point dtype such as torch.float32, or None"
    )


def _in_block(around: turbo, output_dtype: OutputDtype, forward: Callable[..., Any]) -> Callable[..., Any]:
    """How `forward` is called in a block: ``call(forward, module, args, kwargs)``.

    Raises:
        TargetError: it is a generator or a coroutine, which no module's forward can be.
    """
    if in_turns(forward):
        raise TargetError(f"{forward.__qualname__} runs in turns, which the forward of an accelerated module cannot do")
    site, compiles = site_of(forward), around.compiles

    @untraced
    def call(forward: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        if torch.compiler.is_exporting() or is_fx_tracing():
            raise TargetError(
                "torch.export and torch.fx cannot trace what is accelerated: the program would not have the profile. "
                "Trace restore(model), and accelerate what calls the program"
            )
        active = _enter(around, site)
        try:
            outputs = (call_compiled if compiles else as_outermost)(module, forward, args, kwargs)
            if output_dtype is not None and (half := dtype_put_on(active.parts())) is not None:
                if output_dtype == "input":
                    outputs = as_inputs(outputs, half, (args, kwargs), module)
                else:
                    outputs = as_dtype(outputs, half, output_dtype)
            _leave(active, None)
        except BaseException as error:
            _leave_failed(active, error)
            raise
        return outputs

    return call


class Forward:
    """The ``forward`` of one accelerated module; a copy of the module gets its own.

    It does not keep its module alive, which has it among its attributes: a module that is dropped is gone at once, and
    its memory with it.

    Args:
        beneath: the forward that is called, bound.
        around: the block.
        output_dtype: what half precision outputs become.
        module: whose it is.
        before: what the module itself had of `_CHANGED`.
    """

    __prepare_scriptable__ = refuse_script

    # Dynamo would go on without the block.
    _torchdynamo_disable = True
    _torchdynamo_disable_msg = None

    def __init__(
        self,
        beneath: Callable[..., Any],
        around: turbo,
        output_dtype: OutputDtype,
        module: nn.Module,
        before: dict[str, Any],
    ) -> None:
        # Proxies and other forwards of ours say that they are methods too.
        self._bound = type(beneath) is MethodType and beneath.__self__ is module
        self._function: Any = beneath.__func__ if isinstance(beneath, MethodType) and self._bound else beneath
        self._module = weakref.ref(module)
        self._call = _in_block(around, output_dtype, beneath)
        self._self_around = around
        self._rest = around, output_dtype
        self.__doc__ = beneath.__doc__
        self._before = before

    def _its_module(self) -> nn.Module:
        module = self._module()
        if module is None:
            raise ReferenceError("the module of this forward is gone: keep the module, and call that")
        return module

    @property
    def __wrapped__(self) -> Any:
        return self._function.__get__(self._its_module()) if self._bound else self._function

    @untraced
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        module = self._its_module()
        return self._call(self._function.__get__(module) if self._bound else self._function, module, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<accelerated {self.__wrapped__!r}>"

    def __copy__(self) -> Forward:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Forward:
        # Of the module, in the middle of its own copy: the memo has it.
        return Forward(*copy.deepcopy((self.__wrapped__, *self._rest, self._its_module(), self._before), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return Forward, (self.__wrapped__, *self._rest, self._its_module(), self._before)


def accelerated_module(module: nn.Module, around: turbo, output_dtype: OutputDtype) -> None:
    """Puts a block around a module's ``forward``.

    Raises:
        TargetError: it has none, or TorchScript's.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise TargetError(
            f"{type(module).__name__} is TorchScript's, and cannot be changed: accelerate the function that calls it"
        )
    if has_its_own(module):
        raise TargetError(
            f"{type(module).__name__} is what torch.compile has made of a module: accelerate that module itself, with "
            "compile=True"
        )
    _has_forward(type(module).__name__, module.forward)
    own = vars(module)
    before = {name: own[name] for name in _CHANGED if name in own}
    own["forward"] = Forward(module.forward, around, output_dtype, module, before)
    own["__prepare_scriptable__"] = refuse_script


def accelerated_class(kind: type[nn.Module], around: turbo, output_dtype: OutputDtype) -> None:
    """Puts a block around the ``forward`` of a class of modules.

    Raises:
        TargetError: it has none.
    """
    forward: Any = kind.forward
    _has_forward(kind.__name__, forward)
    run = _in_block(around, output_dtype, forward)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not args:
            return forward(**kwargs)  # says what is missing
        return run(forward.__get__(args[0]), args[0], args[1:], kwargs)

    new = like(call, forward)
    AROUND[new] = around
    # With the function, since who wraps it copies its attributes.
    setattr(new, _BEFORE, (new, {name: vars(kind)[name] for name in _CHANGED if name in vars(kind)}))
    kind.forward = new
    kind.__prepare_scriptable__ = staticmethod(refuse_script)  # type: ignore[attr-defined]


def _has_forward(name: str, forward: Any) -> None:
    if getattr(forward, "__func__", forward) is nn.Module.forward:
        raise TargetError(f"{name} has no forward to accelerate: accelerate what defines one, or what calls its parts")


def _before(forward: Any) -> dict[str, Any] | None:
    """What stood there before a forward of ours, or None for any other."""
    if type(forward) is Forward:
        return forward._before
    function, before = getattr(forward, _BEFORE, (None, None))
    return before if function is forward else None


def restored(target: nn.Module | type[nn.Module]) -> None:
    """Takes every block off a module or a class again; nothing where there is none.

    Raises:
        TargetError: somebody has wrapped its forward since, so that it cannot be put back.
    """
    if isinstance(target, nn.Module):
        forget(target)
    # A module's own setattr takes modules and parameters for itself; a class has no other way.
    own = vars(target)
    put = own.__setitem__ if isinstance(target, nn.Module) else partial(setattr, target)
    take = partial(own.pop) if isinstance(target, nn.Module) else partial(delattr, target)
    while "forward" in vars(target):
        forward = vars(target)["forward"]
        before = _before(forward)
        if before is None:
            break
        for name in _CHANGED:
            if name in before:
                put(name, before[name])
            else:
                take(name)
    beneath = vars(target).get("forward")
    while beneath is not None:
        if _before(beneath) is not None:
            raise TargetError("its forward has been wrapped since it was accelerated: take that off first")
        beneath = getattr(beneath, "__wrapped__", None)
