"""Scaled backward: gradients are scaled while the engine runs, and true wherever anybody can see them.

Small gradients become zero in half precision, so the first of them, at the outputs, are multiplied by the scale. What
the engine adds to a leaf's ``.grad`` is scaled then; so is what stood there before, for as long as the engine runs, and
all of it is divided in bulk afterwards. The loss itself is never touched. Leaves with hooks are divided one by one,
before their hooks see the gradient.

Whatever runs within a scaled backward (a checkpoint that calls backward itself, hooks that do, threads of a device) is
part of it, and finds its window by what torch carries from thread to thread with it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from torchturbo._dynamo import untraced
from torchturbo.errors import AccumulationError, ScalingError
from torchturbo.regions import _own_scalers
from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._finite import has_no_values
from torchturbo.regions._gradients import (
    by_hooks,
    check_leaves,
    divide_first,
    gradients_of,
    refuse,
    scale_in_place,
    unscale_leaves,
)
from torchturbo.regions._here import thread
from torchturbo.regions._leaves import Graph, as_leaves, leaf_of
from torchturbo.regions._retained import Retained
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._sharded import Shards, shards_of
from torchturbo.regions._window import LEFT_ALONE, Window, open_windows, running, stash, times

_Engine = Callable[..., Any]
_Outputs = tuple[Tensor | GradientEdge, ...]


@untraced
def scaled_backward(
    scaler: Scaler | None,
    accumulating: Accumulation | None,
    engine: _Engine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """One backward in a region that scales gradients, accumulates them, or both.

    Args:
        scaler: the region's, or None.
        accumulating: the region's, or None.
        engine: runs the backward.
        args: what the engine is called with: outputs, their gradients, whether to keep the graph and to create one,
            and inputs.
        kwargs: what it is called with by name.

    Raises:
        ScalingError: it cannot be scaled; nothing has run.
        AccumulationError: it cannot be accumulated; nothing has run.
    """
    within = running()
    if isinstance(within, Window):
        return backward_in(within, engine, args, kwargs)
    if within is not None:
        return engine(*args, **kwargs)
    outputs, grads, keep, create, inputs, *rest = args
    if _has_no_values(outputs):
        return _left_alone(engine, args, kwargs)
    if not kwargs["accumulate_grad"]:
        if scaler is None or _is_transformed() or _own_scalers.has_scaled(outputs):
            return _left_alone(engine, args, kwargs)
        if create:
            return _asked_for(scaler, engine, args, kwargs)
        return _asked_for_a_step(scaler, engine, args, kwargs)
    graph = Graph(outputs)
    if _own_scalers.scaled(scaler, graph.nodes):
        if accumulating is not None:
            raise AccumulationError(
                "accumulate= and a GradScaler of the loop's own do not go together, which would unscale sums that are "
                "not whole: take the GradScaler away, and the block scales"
            )
        return _left_alone(engine, args, kwargs)
    # Sums are put back first: a gradient that is gone may be in one.
    begun = {} if accumulating is not None else graph.leaves
    if scaler is not None and scaler._bad:
        begun = {**begun, **shards_of(begun).leaves}
    window = Window(scaler, accumulating, begun.values())
    thread.here.last_scaler = scaler
    open_windows.append(window)
    stash(window)
    failed = False
    try:
        return _run(window, graph, engine, (outputs, window.begun(grads), keep, create, inputs, *rest), kwargs)
    except BaseException:
        failed = True
        raise
    finally:
        stash(None)
        open_windows.remove(window)
        if window.within and scaler is not None:
            unscale_leaves(scaler, window.scale, _live(window.within), alone=failed)
        if accumulating is not None:
            accumulating.end(_live(window.reached))


def _live(references: list[weakref.ref[Tensor]]) -> list[Tensor]:
    return [leaf for reference in references if (leaf := reference()) is not None]


@untraced
def _left_alone(engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    outer = running()
    stash(LEFT_ALONE)
    try:
        return engine(*args, **kwargs)
    finally:
        stash(outer)


@untraced
def _asked_for_a_step(scaler: Scaler, engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.autograd.grad` without a graph: scaled if it is of all parameters, as one takes a step with.

    Of some of them it may only be looked at, and then its bits are those of fp16 without scaling.
    """
    outputs, inputs = args[0], args[4]
    asked = {id(leaf): leaf for each in inputs if (leaf := leaf_of(each)) is not None}
    parameters = [key for key, leaf in Graph(outputs).leaves.items() if isinstance(leaf, torch.nn.Parameter)]
    if not parameters or not asked.keys() >= set(parameters):
        found = _left_alone(engine, args, kwargs)
        scaler.unscaled.are(grad for grad in found if grad is not None)
        return found
    refuse(asked, goes_on=False)
    found = _asked_for(scaler, engine, args, kwargs)
    grads = [grad for grad in found if grad is not None]
    # A batch of them (is_grads_batched) has no values of its own that could be looked at.
    if not any(map(torch._C._functorch.is_legacy_batchedtensor, grads)):
        scaler.asked_for(grads)
    return found


@untraced
def _asked_for(scaler: Scaler, engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.autograd.grad`, as torch's documentation has it for gradient penalties: scaled, divided, and then used."""
    outputs, grads, keep, create, inputs, *rest = args
    scale = scaler.begin()
    thread.here.last_scaler = scaler
    tensors = [each if isinstance(each, Tensor) else leaf_of(each) for each in inputs]
    hooked = {id(each): each for each in tensors if each is not None and each._backward_hooks}
    undo = [divide_first(None, scale, each) for each in hooked.values()]
    try:
        found = _left_alone(engine, (outputs, times(grads, scale), keep, create, inputs, *rest), kwargs)
    finally:
        for each in undo:
            each()
    return tuple(
        grad if grad is None or id(each) in hooked else grad * (1.0 / scale)
        for grad, each in zip(found, tensors, strict=True)
    )


@untraced
def backward_in(window: Window, engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One backward within a scaled one, whose gradients are scaled already; but for one that begins anew.

    Args:
        window: the scaled one.
        engine: runs the backward.
        args: what the engine is called with.
        kwargs: what it is called with by name.
    """
    if not kwargs.get("accumulate_grad"):
        return engine(*args, **kwargs)
    outputs, grads, *rest = args
    graph = Graph(outputs)
    if _begins_anew():
        return _run(window, graph, engine, (outputs, window.begun(grads), *rest), kwargs)
    return _run(window, graph, engine, args, kwargs, goes_on=True)


@untraced
def _begins_anew() -> bool:
    """Whether the backward that is called was given no gradients, and so does not go on with those of another."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not torch.autograd.backward.__code__:
        frame = frame.f_back
    given = None if frame is None else frame.f_locals.get("grad_tensors")
    return given is None or (isinstance(given, tuple | list) and all(each is None for each in given))


def _is_transformed() -> bool:
    """Whether a transform of torch.func asks, not the loop."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _has_no_values(outputs: _Outputs) -> bool:
    """Whether a compiler asks, or somebody who wants to know shapes alone."""
    return any(isinstance(output, Tensor) and has_no_values(output) for output in outputs)


# ------------------------------------------------------------------------------------------------------ the engine run


@untraced
def _run(
    window: Window,
    graph: Graph,
    engine: _Engine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    goes_on: bool = False,
) -> Any:
    inputs = args[4]
    leaves = {id(leaf): leaf for leaf in as_leaves(inputs)} if inputs else graph.leaves
    if window.taken:
        leaves = {key: leaf for key, leaf in leaves.items() if key not in window.taken}
    shards = shards_of(leaves)
    if shards.leaves:
        leaves = {**leaves, **shards.leaves}
    if window.accumulating is not None:
        # What FSDP2 keeps of whole parameters is not seen by the loop, and stands until it is reduced.
        seen = {key: leaf for key, leaf in leaves.items() if key not in shards.whole} if shards.whole else leaves
        window.accumulating.begin(seen)
        window.reached += map(weakref.ref, seen.values())
    if window.scaler is None:
        return engine(*args, **kwargs)
    return _run_scaled(window, window.scaler, leaves, shards, engine, args, kwargs, goes_on=goes_on)


@untraced
def _run_scaled(
    window: Window,
    scaler: Scaler,
    leaves: dict[int, Tensor],
    shards: Shards,
    engine: _Engine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    goes_on: bool,
) -> Any:
    create, inputs = args[3], args[4]
    refuse(leaves, goes_on=goes_on, whole=shards.whole)
    _refuse_others(window, leaves)
    retained = Retained.of(inputs, window.taken)
    if inputs:
        leaves = {key: leaf for key, leaf in leaves.items() if leaf.is_leaf}
    hooked, plain = by_hooks(leaves, create)
    standing = [*gradients_of(plain), *shards.kept()]
    undo: list[Callable[[], None]] = []
    scaled = failed = False
    taken = leaves.keys() if retained is None else leaves.keys() | retained.taken
    window.taken |= taken
    try:
        # Where sums have been put back, nobody has looked yet; the next backward begins with what comes of it.
        scaler._drops += scaler.forget_what_is_gone(leaves.values())
        if retained is not None:
            retained.put_aside()
        for leaf in hooked:
            undo.append(divide_first(scaler, window.scale, leaf))
        scaled = True
        if standing:
            scale_in_place(standing, window.scale)
        return engine(*args, **kwargs)
    except BaseException:
        failed = True
        raise
    finally:
        if scaled and goes_on:
            window.within += map(weakref.ref, plain)
            taken = taken - {id(leaf) for leaf in plain}
        elif scaled:
            unscale_leaves(scaler, window.scale, plain, shards.kept(), alone=failed)
        if hooked:
            for each in reversed(undo):
                each()
            check_leaves(scaler, hooked, alone=failed)
        if retained is not None:
            retained.put_back(window.scale, create)
        window.taken -= taken


def _refuse_others(window: Window, leaves: dict[int, Tensor]) -> None:
    if len(open_windows) > 1:
        for other in open_windows:
            if other is not window and not other.taken.isdisjoint(leaves):
                raise ScalingError("two threads run backward into the same parameters at once, which cannot be scaled")
