"""Optimizer steps that do not happen: a gradient is not finite, or micro-batches are still to come.

Written by hand, the optimizer is not called then: no state moves, no hook runs, no counter of a subclass counts. torch
puts one and the same wrapper around the ``step`` of every class of optimizers, and so the code of these wrappers is
exchanged while some thread scales or accumulates; schedulers, which hold the wrapper itself, are reached too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType
from typing import Any

import torch
import torch.optim.optimizer as optimizers
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.errors import ScalingError
from torchturbo.regions import _retained
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._here import back, off, on_again, thread
from torchturbo.regions._own_scalers import scale_calls
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._steps import Step
from torchturbo.regions._window import current_window

_MODULE = vars(optimizers)
_Optimizer = optimizers.Optimizer
_TRIES = 48
"""Evaluations of a closure, each at half the scale of the one before: from torch's first scale to far below one."""


def _nothing() -> None:
    pass


_WRAPPER: Any = _Optimizer.profile_hook_step(_nothing)
_THEIRS: CodeType = _WRAPPER.__code__
"""What every class of optimizers has around its ``step``."""


@untraced
def _step(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = thread.here
    scaler, accumulating = here.scaler, here.accumulating
    if scaler is None and accumulating is None and (window := current_window()) is not None:
        scaler, accumulating = window.scaler, window.accumulating
    if here.user_scales:
        scaler = None
    run = FunctionType(_THEIRS, _MODULE, "step", None, (CellType(func),))
    if (scaler is None and accumulating is None) or not args or id(args[0]) in here.stepping:
        return run(*args, **kwargs)
    optimizer = args[0]
    leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
    # A function that is called in the block, with a block of its own, may have run the backward.
    last = here.last_scaler
    if scaler is not None and last not in (None, scaler) and last.knows(leaves) and not scaler.knows(leaves):
        scaler = last
    # An optimizer within another steps with it.
    if accumulating is not None and not here.stepping and not accumulating.happens(optimizer, leaves, args[1:], kwargs):
        on_again(here)
        return None
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if scaler is not None and not callable(closure) and not scaler.allows(leaves):
        scaler.noted(leaves, ran=False)
        here.left_out[optimizer] = weakref.WeakSet()
        on_again(here)
        return None
    on_again(here)
    torch.clear_autocast_cache()
    step = Step(0, off(here))
    if callable(closure):
        closure = step.around(closure if scaler is None else _finite(closure, scaler, leaves))
        args, kwargs = (optimizer, closure, *args[2:]), {**kwargs}
        kwargs.pop("closure", None)
    here.stepping.append(id(optimizer))
    ran = True
    try:
        result = run(*args, **kwargs)
    except _LeftOut as left_out:
        result, ran = left_out.args[0], False
    finally:
        here.stepping.pop()
        back(here, step.before)
    if scaler is not None:
        scaler.noted(leaves, ran=ran)
        if ran:
            here.left_out.pop(optimizer, None)
        else:
            here.left_out[optimizer] = weakref.WeakSet()
    return result


@untraced
def at_once(optimizers: Iterable[Any], call: Callable[[], Any]) -> Any:
    """Calls something within which steps of some optimizers are those of torch, whatever region is open.

    Args:
        optimizers: these.
        call: what is called.
    """
    stepping = thread.here.stepping
    before = len(stepping)
    stepping += map(id, optimizers)
    try:
        return call()
    finally:
        del stepping[before:]


class _LeftOut(Exception):
    """A closure's gradients are not finite, and the step does not happen; with what the closure has returned."""


def _finite(closure: Callable[[], Any], scaler: Scaler, leaves: list[Tensor]) -> Callable[[], Any]:
    """A closure that is evaluated again, at smaller scales, until its gradients are finite.

    What adds to the gradients of earlier micro-batches, as Lightning's does, cannot be: they would not be finite
    either, or be added to twice. Its step is left out; the closure is the first thing that an optimizer calls.
    """
    # Of a backward since the last step.
    goes_on = not scaler._stepped and scaler.knows(leaves)

    @untraced
    def run() -> Any:
        nonlocal goes_on
        for _ in range(_TRIES):
            result = closure()
            adds, goes_on = goes_on, False
            if scaler.allows(leaves):
                return result
            if adds:
                raise _LeftOut(result)
            for leaf in leaves:
                scaler.cleared(leaf)
            scaler.back_off()
        raise ScalingError(
            f"the closure's gradients overflow however little they are scaled ({_TRIES} tries, down to a scale of "
            f"{scaler.get_scale():g}): look for inf or nan in the data, the loss or the forward pass"
        )

    return run


def _closing_over(func: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            # Dynamo takes no function for a constant; it breaks its graph at this one.
            from torchturbo.regions import _skipping

            return _skipping._step(func, args, kwargs)
        call: Any = "ours"
        return call(func, args, kwargs)

    return wrapper


_OURS = code_like(_WRAPPER, _closing_over(_nothing), _step)


# ------------------------------------------------------------------------------------------------- in place meanwhile


def classes_below(above: type) -> Iterator[type]:
    """Every class that derives from another, some of them more than once.

    Args:
        above: that one.
    """
    kind: type
    for kind in type.__subclasses__(above):
        yield kind
        yield from classes_below(kind)


def _wrappers(kind: type) -> Iterator[Any]:
    """Torch's wrapper around the ``step`` that a class defines, under what others have put around it."""
    step = vars(kind).get("step")
    while step is not None:
        if getattr(step, "__code__", None) is _THEIRS:
            yield step
        step = getattr(step, "__wrapped__", None)


_exchanged: list[weakref.ref[Any]] = []


def _exchange(kind: type) -> None:
    for wrapper in _wrappers(kind):
        wrapper.__code__ = _OURS
        _exchanged.append(weakref.ref(wrapper))


def _standing_in(self: Any) -> Any:
    call: Any = "ours"
    return call(self)


@untraced
def _patch_step_function(optimizer: Any) -> None:
    _first_of_a_class.theirs(optimizer)
    for kind in type(optimizer).__mro__:
        _exchange(kind)


_PATCH: Any = vars(_Optimizer)["_patch_step_function"]
_first_of_a_class = Exchange(_PATCH, code_like(_PATCH, _standing_in, _patch_step_function))
"""What wraps the ``step`` of a class when its first optimizer is made."""

_regions = 0


def steps_opened() -> None:
    """Counts a thread that scales or accumulates. Always under the lock of the stack, as `steps_closed` is."""
    global _regions
    _regions += 1
    if _regions == 1:
        _first_of_a_class.opened()
        for kind in classes_below(_Optimizer):
            _exchange(kind)
        scale_calls.opened()
        _retained.watch()


def steps_closed() -> None:
    """Counts a thread that does no more."""
    global _regions
    _regions -= 1
    if not _regions:
        _retained.unwatch()
        scale_calls.closed()
        _first_of_a_class.closed()
        while _exchanged:
            wrapper = _exchanged.pop()()
            if wrapper is not None and wrapper.__code__ is _OURS:
                wrapper.__code__ = _THEIRS
