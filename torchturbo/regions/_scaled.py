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
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.utils.hooks import RemovableHandle

from torchturbo._dynamo import untraced
from torchturbo.errors import ScalingError
from torchturbo.regions import _own_scalers
from torchturbo.regions._leaves import Graph, as_leaves
from torchturbo.regions._retained import Retained
from torchturbo.regions._scaler import Scaler, all_finite, unscale, values_of

_Engine = Callable[..., Any]
_Outputs = tuple[Tensor | GradientEdge, ...]
_KEY = "torchturbo.window"
_C: Any = torch._C
_forget: Callable[[str], None] = getattr(_C, "_remove_obj_from_tls", None) or (
    lambda key: _C._stash_obj_in_tls(key, None)
)


class Window:
    """One backward that began in a region, with all that runs within it.

    Attributes:
        scaler: what it is scaled by.
        scale: the factor.
        taken: the leaves that are seen to, by identity.
    """

    __slots__ = ("scale", "scaler", "taken")

    def __init__(self, scaler: Scaler) -> None:
        self.scaler = scaler
        self.scale = scaler.begin()
        self.taken: set[int] = set()


_open: list[Window] = []
"""The windows of all threads."""


@untraced
def current_window() -> Window | None:
    """The scaled backward that this thread runs a part of, or None."""
    return _C._get_obj_in_tls(_KEY) if _open and _C._is_key_in_tls(_KEY) else None


@untraced
def scaled_backward(scaler: Scaler, engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One backward in a region that scales.

    Args:
        scaler: the region's.
        engine: runs the backward.
        args: what the engine is called with: outputs, their gradients, whether to keep the graph and to create one,
            and inputs.
        kwargs: what it is called with by name.

    Raises:
        ScalingError: it cannot be scaled; nothing has run.
    """
    window = current_window()
    if window is not None:
        return backward_in(window, engine, args, kwargs)
    outputs, grads, keep, create, inputs, *rest = args
    if not kwargs["accumulate_grad"]:
        if not create or _is_transformed(outputs):
            return engine(*args, **kwargs)
        # As torch's documentation has it for penalties on gradients: they are differentiated further, so they are true.
        scale = scaler.begin()
        found = engine(outputs, _times(grads, scale), keep, create, inputs, *rest, **kwargs)
        return tuple(None if grad is None else grad * (1.0 / scale) for grad in found)
    graph = Graph(outputs)
    if _own_scalers.scaled(scaler, graph.nodes):
        return engine(*args, **kwargs)
    window = Window(scaler)
    _open.append(window)
    _C._stash_obj_in_tls(_KEY, window)
    try:
        return _run(window, graph, engine, (outputs, _times(grads, window.scale), keep, create, inputs, *rest), kwargs)
    finally:
        _forget(_KEY)
        _open.remove(window)


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
    if _begins_anew():
        grads = _times(grads, window.scale)
    return _run(window, Graph(outputs), engine, (outputs, grads, *rest), kwargs)


@untraced
def _begins_anew() -> bool:
    """Whether the backward that is called was given no gradients, and so does not go on with those of another."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not torch.autograd.backward.__code__:
        frame = frame.f_back
    given = None if frame is None else frame.f_locals.get("grad_tensors")
    return given is None or (isinstance(given, tuple | list) and all(each is None for each in given))


def _is_transformed(outputs: _Outputs) -> bool:
    """Whether a transform of torch.func or a compiler asks, not the loop."""
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    return _C._functorch.peek_interpreter_stack() is not None or (
        fake is not None and any(isinstance(output, fake.FakeTensor) for output in outputs)
    )


def _times(grads: Iterable[Tensor | None], scale: float) -> tuple[Tensor | None, ...]:
    return tuple(None if grad is None else grad * scale for grad in grads)


# ------------------------------------------------------------------------------------------------------ the engine run


@untraced
def _run(window: Window, graph: Graph, engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    create, inputs = args[3], args[4]
    leaves = {id(leaf): leaf for leaf in as_leaves(inputs)} if inputs else graph.leaves
    if window.taken:
        leaves = {key: leaf for key, leaf in leaves.items() if key not in window.taken}
    _refuse(window, leaves)
    retained = Retained.of(inputs, window.taken)
    if inputs:
        leaves = {key: leaf for key, leaf in leaves.items() if leaf.is_leaf}
    hooked, plain = _by_hooks(leaves, create)
    standing = _grads(plain)
    undo: list[Callable[[], None]] = []
    scaled = False
    taken = leaves.keys() if retained is None else leaves.keys() | retained.taken
    window.taken |= taken
    try:
        _forget_what_is_gone(window.scaler, leaves.values())
        if retained is not None:
            retained.put_aside()
        for leaf in hooked:
            undo.append(_divide_first(window, leaf))
        scaled = True
        if standing:
            _scale(standing, window.scale)
        return engine(*args, **kwargs)
    finally:
        if scaled:
            _unscale(window, plain)
        if hooked:
            for each in reversed(undo):
                each()
            _check(window, hooked)
        if retained is not None:
            retained.put_back(window.scale, create)
        window.taken -= taken


def _by_hooks(leaves: dict[int, Tensor], create: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves whose gradient is divided before it is added to what stands in ``.grad``, and the others.

    They are those with hooks, which see it; all, where it is to be differentiated further.
    """
    if create:
        return list(leaves.values()), []
    hooked = [leaf for leaf in leaves.values() if leaf._backward_hooks or leaf._post_accumulate_grad_hooks]
    if not hooked:
        return hooked, list(leaves.values())
    # Two leaves may share one gradient.
    theirs = {id(leaf.grad) for leaf in hooked if leaf.grad is not None}
    known = {id(leaf) for leaf in hooked}
    hooked += [leaf for key, leaf in leaves.items() if key not in known and id(leaf.grad) in theirs]
    known.update(map(id, hooked))
    return hooked, [leaf for key, leaf in leaves.items() if key not in known]


_PLAIN = (Tensor, torch.nn.Parameter)


def _refuse(window: Window, leaves: dict[int, Tensor]) -> None:
    for leaf in leaves.values():
        if leaf.dtype is torch.float16 or getattr(leaf, "grad_dtype", None) is torch.float16:
            what = "parameters" if isinstance(leaf, torch.nn.Parameter) else "tensors cut out of the graph (detach())"
            raise ScalingError(
                f"fp16 gradients cannot be scaled back: {what} of shape {tuple(leaf.shape)} are float16 themselves, "
                "and small gradients would become zero in them. Keep parameters in float32 with model.float() and let "
                "autocast compute in fp16 (cut tensors out with .detach().float()), or use autocast=None"
            )
        if leaf.__class__ not in _PLAIN and leaf.__class__.__name__ in ("DTensor", "FlatParameter"):
            raise ScalingError(
                "parameters that are sharded between processes (FSDP) overflow on one process alone, which this "
                "version does not tell the others: use autocast='bf16', which needs no scaling"
            )
    if len(_open) > 1:
        for other in _open:
            if other is not window and not other.taken.isdisjoint(leaves):
                raise ScalingError("two threads run backward into the same parameters at once, which cannot be scaled")


def _grads(leaves: Iterable[Tensor]) -> list[Tensor]:
    """The gradients of leaves, each once."""
    return list({id(grad): grad for leaf in leaves if (grad := leaf.grad) is not None}.values())


def _forget_what_is_gone(scaler: Scaler, leaves: Iterable[Tensor]) -> None:
    """An overflow is over with the gradient that it was in."""
    if scaler.any_bad:
        for leaf in leaves:
            if leaf.grad is None or (scaler.is_bad(leaf) and not values_of(leaf.grad.detach()).any()):
                scaler.cleared(leaf)


@torch.no_grad()
def _scale(grads: list[Tensor], scale: float) -> None:
    torch._foreach_mul_([values_of(grad) for grad in grads], scale)


def _unscale(window: Window, leaves: list[Tensor]) -> None:
    grads = _grads(leaves)
    if unscale(grads, 1.0 / window.scale):
        window.scaler.finite(grads)
    else:
        _note_overflow(window, leaves)


def _check(window: Window, leaves: list[Tensor]) -> None:
    """A reduction between processes can have brought another's overflow."""
    grads = _grads(leaves)
    if all_finite(grads):
        window.scaler.finite(grads)
    else:
        _note_overflow(window, leaves)


def _note_overflow(window: Window, leaves: list[Tensor]) -> None:
    for leaf in leaves:
        if leaf.grad is not None and not bool(torch.isfinite(values_of(leaf.grad)).all()):
            window.scaler.overflowed(leaf, True)


def _divide_first(window: Window, leaf: Tensor) -> Callable[[], None]:
    """Has a leaf's gradient divided before its hooks see it, and before it is added to what stands there."""
    scaler, inverse = window.scaler, 1.0 / window.scale

    @untraced
    def divide(grad: Tensor) -> Tensor:
        true = grad * inverse
        if not scaler.is_bad(leaf):
            scaler.overflowed(leaf, ~torch.isfinite(values_of(true.detach())).all())
        return true

    handle: RemovableHandle = leaf.register_hook(divide)  # type: ignore[no-untyped-call]
    hooks: Any = leaf._backward_hooks
    if len(hooks) > 1:
        _move_to_front(hooks, handle.id)
    return handle.remove


def _move_to_front(hooks: OrderedDict[int, Any], key: int) -> None:
    # torch goes through the dict beneath, in which move_to_end moves nothing.
    ours = hooks.pop(key)
    theirs = list(hooks.items())
    hooks.clear()
    hooks[key] = ours
    hooks.update(theirs)
