"""What a thread's region is, and autocast switched off in it for a while.

Written by hand, autocast covers the forward pass and the loss, and nothing else. From the end of a backward until the
optimizer has stepped, code looks at gradients: it clips them, projects them, multiplies them with each other, and is
meant to do so in float32. So autocast stays off there, and is on again with the next forward: after the step, or where
a module is called before one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.utils.checkpoint

from torchturbo._dynamo import untraced
from torchturbo.regions._calls import Exchange, code_like, module_calls

if TYPE_CHECKING:
    from torchturbo.regions._accumulating import Accumulation
    from torchturbo.regions._scaler import Scaler


class Factors(NamedTuple):
    """How a scale of gradients starts and moves, as `torch.amp.GradScaler` has it: by powers of two.

    Attributes:
        init_scale: the scale to begin with.
        growth_factor: what it is multiplied by after `growth_interval` steps in a row that ran.
        backoff_factor: what it is multiplied by after a step that was skipped.
        growth_interval: in steps.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000


class Here:
    """What a thread's region needs to know.

    Attributes:
        devices: the device types that the region put under autocast; empty where no region is open.
        has_called: whether a module has been called in a region that scales; True where none has to be noticed.
        accumulating: what accumulates gradients over micro-batches, or None.
        in_scheduler: whether a scheduler takes a step.
        factors: how the scale of a new scaler starts and moves.
        scaler: what scales the gradients of backward, or None.
        left_out: optimizers whose last step in a region was left out, each with the schedulers that have waited for it:
            the loop may call these where the function that steps has ended, and its region with it.
        own: where the code enters the `torch.autocast` that has shown itself to be around its forward passes, to which
            the region's is left; False where it has shown itself to be around less; None before the first.
        last_scaler: what scaled the last backward, in this block or one within it.
        after: whether a backward has ended and autocast is off until the step has ended, or a module is called.
        changes: how often the region has changed, so that one which closes in the middle of a backward or a step is not
            opened again by their end.
        steps: the optimizer steps under way, oldest first.
        stepping: the optimizers whose steps run in a region that scales, by identity; autocast is off.
        user_scales: whether the losses of the region are scaled by a `GradScaler` of the user's own; None before the
            first.
        scaled_by_user: the nodes of losses that were.
        spans: the autocasts of the code's own since the last backward.
    """

    __slots__ = (
        "accumulating",
        "after",
        "changes",
        "devices",
        "factors",
        "has_called",
        "in_scheduler",
        "last_scaler",
        "left_out",
        "own",
        "scaled_by_user",
        "scaler",
        "spans",
        "stepping",
        "steps",
        "user_scales",
    )

    def __init__(self) -> None:
        self.devices: tuple[str, ...] = ()
        self.accumulating: Accumulation | None = None
        self.has_called = True
        self.in_scheduler = False
        self.factors = Factors()
        self.scaler: Scaler | None = None
        self.last_scaler: Scaler | None = None
        self.left_out: WeakKeyDictionary[Any, WeakSet[Any]] = WeakKeyDictionary()
        self.after = False
        self.changes = 0
        self.steps: list[Any] = []
        self.stepping: list[int] = []
        self.user_scales: bool | None = None
        self.scaled_by_user: deque[Any] = deque(maxlen=64)
        self.own: str | bool | None = None
        self.spans: list[Any] = []


class _Thread(threading.local):
    def __init__(self) -> None:
        self.here = Here()


thread = _Thread()


class Before(NamedTuple):
    """Autocast before it was switched off.

    Attributes:
        changes: of the thread's region, as counted then.
        enabled: whether it was on, by device.
    """

    changes: int
    enabled: list[tuple[str, bool]]


@untraced
def off(here: Here) -> Before:
    """Switches autocast off where the region has put it on, and returns what it was."""
    before = [(device, torch.is_autocast_enabled(device)) for device in here.devices]
    for device in here.devices:
        torch.set_autocast_enabled(device, False)
    return Before(here.changes, before)


@untraced
def back(here: Here, before: Before) -> None:
    """Returns to what was before, unless the region has changed meanwhile."""
    if here.changes == before.changes:
        for device, enabled in before.enabled:
            torch.set_autocast_enabled(device, enabled)


_increment, _decrement = torch.autocast_increment_nesting, torch.autocast_decrement_nesting


@untraced
def _in_a_block_of_the_users() -> bool:
    """Whether a `torch.autocast` of the user's own is open: it puts back by itself what it found."""
    _increment()
    return _decrement() > 0


@untraced
def stay_off(here: Here, before: Before) -> None:
    """Leaves autocast off after a backward, until it is resumed; or returns to what was before, if that is unsafe."""
    # A region that only accumulates has put it on nowhere, and would not be told of the next forward.
    on = bool(before.enabled) and all(enabled for _, enabled in before.enabled)
    if here.changes != before.changes or not on or here.steps or here.stepping or _in_a_block_of_the_users():
        back(here, before)
    else:
        set_after(here, True)


@untraced
def on_again(here: Here) -> None:
    """Switches autocast on again after a backward, for a step and what follows it.

    The next module that is called does so once more: of a step that is compiled, Dynamo takes it back.
    """
    if _is_over(here):
        for device in here.devices:
            torch.set_autocast_enabled(device, True)


@untraced
def _is_over(here: Here) -> bool:
    """Whether what follows a backward is over, when a step or a forward begins; neither within a step is its end."""
    return here.after and not here.steps and not here.stepping and not _in_a_block_of_the_users()


_OF_GRAPHS = frozenset(
    os.path.join(os.path.dirname(torch.__file__), *path)
    for path in (("_functorch", "_aot_autograd", "runtime_wrappers.py"), ("_higher_order_ops", "wrap.py"))
)
"""The files whose code runs what `torch.compile` has made."""


@untraced
def _in_a_graph() -> bool:
    """Whether a graph runs that was compiled: it has, for the whole of it, the autocast that its caller had."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename not in _OF_GRAPHS:
        frame = frame.f_back
    return frame is not None


@untraced
def _forward_begins(here: Here) -> None:
    """Switches autocast on again after a backward."""
    if _is_over(here) and not _in_a_graph():
        on_again(here)
        set_after(here, False)


@untraced
def _module_is_called(module: Any) -> bool:
    """Notes that a forward begins; and returns whether this is the first module that a block calls."""
    here = thread.here
    # Dynamo says of the graphs that it calls why they end.
    if here.after and "compile_subgraph_reason" not in vars(module):
        _forward_begins(here)
    if here.has_called:
        return False
    set_has_called(here, True)
    return True


@untraced
def set_has_called(here: Here, has_called: bool) -> None:
    """Notes whether the block has called a module, or need not be told of it."""
    if has_called != here.has_called:
        here.has_called = has_called
        (module_calls.closed if has_called else module_calls.opened)()


@contextmanager
def as_in_forward() -> Iterator[None]:
    """Has autocast be for a moment what it will be in the next forward."""
    here = thread.here
    before = [(device, torch.is_autocast_enabled(device)) for device in here.devices]
    on_again(here)
    try:
        yield
    finally:
        for device, enabled in before:
            torch.set_autocast_enabled(device, enabled)


@untraced
def set_after(here: Here, after: bool) -> None:
    """Notes whether autocast is off after a backward."""
    if after != here.after:
        here.after = after
        for forwards in (module_calls, _checkpoints):
            (forwards.opened if after else forwards.closed)()


module_calls.before = _module_is_called


def _standing_in(device_type: str = "cuda") -> Any:
    call: Any = "ours"
    return call(device_type)


@untraced
def _autocast_of_a_checkpoint(device_type: str) -> Any:
    _forward_begins(thread.here)
    return _checkpoints.theirs(device_type)


_FUNCTION: Any = vars(torch.utils.checkpoint)["_get_autocast_kwargs"]
_checkpoints = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _autocast_of_a_checkpoint))
"""What a checkpoint asks first, to run its forward again as it runs it now."""


def recount() -> None:
    """Puts counts right in a forked child, in which only the thread that forked goes on."""
    here = thread.here
    module_calls.forked(int(here.after) + int(not here.has_called))
    _checkpoints.recounted(int(here.after))
