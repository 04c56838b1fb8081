"""A thread's region, and what backward does in it: autocast is off there, and gradients may be scaled.

Backward computes each gradient in the precision of its forward operation, without autocast. Every backward ends in one
module global of torch, `Tensor.backward` and `torch.autograd.grad` too, and that is where it is watched, together with
optimizer steps (`torchturbo.regions._steps`). Both are watched only while some thread's region is open, and nothing is
done in threads that have none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo.regions import _own_autocasts as own_autocasts
from torchturbo.regions import _schedules, _steps
from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._calls import module_calls
from torchturbo.regions._fastpath import FASTPATH, MHA
from torchturbo.regions._fastpath import NAME as FASTPATH_NAME
from torchturbo.regions._here import Factors, Here, back, off, set_after, set_has_called, stay_off, thread
from torchturbo.regions._outside import look
from torchturbo.regions._reducing import FORWARD
from torchturbo.regions._scaled import backward_in, scaled_backward
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._skipping import steps_closed, steps_opened
from torchturbo.regions._steps import AFTER_STEP, BEFORE_STEP, KEY, before_step
from torchturbo.regions._window import current_window
from torchturbo.settings._base import Cell, Write, moved
from torchturbo.settings._edits import Edit, Raw, put_in

_Engine = Callable[..., Any]


@untraced
def _run(engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One backward, with autocast off where this thread's region has put it on, and scaled where that asks for it."""
    here = thread.here
    if not here.devices and here.accumulating is None:
        # A device's thread, which runs part of a scaled backward, has no region.
        window = current_window()
        return engine(*args, **kwargs) if window is None else backward_in(window, engine, args, kwargs)
    if here.steps:
        _steps.heal(here)
    # Copies of weights are kept by an autocast of the user's own inside the region alone; here they go stale.
    torch.clear_autocast_cache()
    if here.spans and kwargs.get("accumulate_grad"):
        own_autocasts.judge(here, args[0])
    outermost = kwargs.get("accumulate_grad") and torch._C._current_graph_task_id() == -1
    before = off(here)
    try:
        if here.scaler is None and here.accumulating is None:
            result = engine(*args, **kwargs)
        else:
            result = scaled_backward(here.scaler, here.accumulating, engine, args, kwargs)
    except BaseException:
        back(here, before)
        raise
    (stay_off if outermost else back)(here, before)
    return result


_NAME = "_engine_run_backward"
_AUTOGRAD = vars(torch.autograd)
"""Every backward ends in a global of this module, `Tensor.backward` and `torch.autograd.grad` too."""


def _around(engine: _Engine) -> _Engine:
    def run(*args: Any, **kwargs: Any) -> Any:
        return _run(engine, args, kwargs)

    return untraced(run)


_TORCH = own_autocasts.TORCH
_ENTERS, _LEAVES = own_autocasts.NAMES
_THEIRS_ENTERS, _THEIRS_LEAVES = own_autocasts.THEIRS
_OURS_ENTERS, _OURS_LEAVES = own_autocasts.STANDING_IN


class _Watch:
    """The places that heed open regions, in place while there is one in any thread.

    Attributes:
        regions: how many threads have a region open.
        engine: what torch called before.
        ours: what stands in for it.
        beneath: whether it stays in the chain of somebody who had patched on top of it when the last region closed.
    """

    __slots__ = ("beneath", "engine", "ours", "regions")

    def __init__(self) -> None:
        self.regions = 0
        self.engine: _Engine | None = None
        self.ours: _Engine = _run
        self.beneath = False

    def count(self, more: int) -> None:
        """Counts regions that open or close, under the lock of the stack; an interrupt comes before that or after it.

        Args:
            more: how many more there are.
        """
        regions = self.regions + more
        if regions and not self.regions:
            if MHA[FASTPATH_NAME] is not FASTPATH.theirs:
                FASTPATH.prepare()
            engine = _AUTOGRAD[_NAME]
            if engine is not self.ours and not (self.beneath and engine is not self.engine):
                if engine is not self.engine:
                    self.engine, self.ours = engine, _around(engine)
                _AUTOGRAD[_NAME] = self.ours
            BEFORE_STEP[KEY] = before_step
            MHA[FASTPATH_NAME] = FASTPATH.ours
            if _TORCH[_ENTERS] is _THEIRS_ENTERS and _TORCH[_LEAVES] is _THEIRS_LEAVES:
                _TORCH[_ENTERS] = _OURS_ENTERS
                _TORCH[_LEAVES] = _OURS_LEAVES
        elif self.regions and not regions:
            # Somebody who patched on top of us keeps us in the chain, where we do nothing without an open region.
            self.beneath = _AUTOGRAD[_NAME] not in (self.ours, self.engine)
            if _AUTOGRAD[_NAME] is self.ours:
                _AUTOGRAD[_NAME] = self.engine
            del BEFORE_STEP[KEY]
            if MHA[FASTPATH_NAME] is FASTPATH.ours:
                MHA[FASTPATH_NAME] = FASTPATH.theirs
            if _TORCH[_ENTERS] is _OURS_ENTERS:
                _TORCH[_ENTERS] = _THEIRS_ENTERS
            if _TORCH[_LEAVES] is _OURS_LEAVES:
                _TORCH[_LEAVES] = _THEIRS_LEAVES
            if KEY in AFTER_STEP:
                del AFTER_STEP[KEY]
        self.regions = regions


_watch = _Watch()
module_calls.after = look


# Python finds a global of its own at once.
_is_cache_enabled, _set_cache_enabled = torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
_clear_cache = torch.clear_autocast_cache

Region = tuple[bool, tuple[str, ...], Scaler | None, bool, str | bool | None]
"""What makes autocast a region in one thread: (whether it keeps cast copies of weights, the device types that the
region has put under it, what scales the gradients of backward, whether it is off after one until the next forward, and
whose autocast has shown itself to be: `Here.own`)."""


def _read_region() -> Region:
    here = thread.here
    if here.steps:
        _steps.heal(here)
    return _is_cache_enabled(), here.devices, here.scaler, here.after, here.own


def _change(here: Here, devices: tuple[str, ...], scaler: Scaler | None, accumulating: Accumulation | None) -> None:
    """Changes what a thread's region is, and has watched what it needs watched."""
    _watch.count((bool(devices) or accumulating is not None) - (bool(here.devices) or here.accumulating is not None))
    stepped = _steps_watched(here)
    here.devices, here.scaler, here.accumulating = devices, scaler, accumulating
    here.user_scales = None
    here.last_scaler = here.last_scaler if scaler is not None else None
    here.scaled_by_user.clear()
    if (now := _steps_watched(here)) != stepped:
        (steps_opened if now else steps_closed)()
    set_has_called(here, scaler is None)


def _steps_watched(here: Here) -> bool:
    return here.scaler is not None or here.accumulating is not None


def _write_region(raw: Region, over: Raw) -> None:
    cache, devices, scaler, after, own = raw
    here = thread.here
    if here.steps:
        # Steps that failed in a region end with it: what they would return to is being written away.
        deque(_steps.failed_steps(here), maxlen=0)
    if scaler is not None or here.scaler is not None or here.accumulating is not None:
        if devices != here.devices or scaler is not here.scaler:
            _change(here, devices, scaler, here.accumulating)
    elif devices is not here.devices:
        # All there is to do for who does not scale.
        _watch.count((not here.devices) - (not devices))
        here.devices = devices
    here.changes += 1
    if after is not here.after:
        set_after(here, after)
    here.own = own
    if here.spans:
        here.spans.clear()
    if cache:
        # Copies that an autocast around the region made earlier would come back to life, stale.
        _clear_cache()
    _set_cache_enabled(cache)


def _moved(found: Region, was: Region, now: Region) -> Region:
    """What a region stands on once the one beneath it is gone, with whom goes that it was after a backward."""
    cache, devices, scaler, after, own = moved(found, was, now)
    return (cache, devices, scaler, *((after, own) if (devices, scaler) == found[1:3] else now[3:]))


REGION = Cell("a region's autocast", "thread", _read_region, _write_region, _moved)


def _read_factors() -> Factors:
    return thread.here.factors


def _write_factors(raw: Factors, over: Raw) -> None:
    thread.here.factors = raw


FACTORS = Cell("how a scale of gradients moves", "thread", _read_factors, _write_factors)
"""How the scale of a scaler that has not begun will start and move."""


def _read_accumulating() -> Accumulation | None:
    return thread.here.accumulating


def _write_accumulating(raw: Accumulation | None, over: Raw) -> None:
    here = thread.here
    if (raw is None) != (here.accumulating is None):
        (_schedules.closed if raw is None else _schedules.opened)()
        (FORWARD.closed if raw is None else FORWARD.opened)()
    _change(here, here.devices, here.scaler, raw)


ACCUMULATING = Cell("accumulated gradients", "thread", _read_accumulating, _write_accumulating)
"""What accumulates gradients over micro-batches."""


def scaler_in(writes: tuple[Write, ...]) -> Scaler | None:
    """What scales in a block that writes these, or None.

    Args:
        writes: its cells and edits.
    """
    put: Region | None = put_in(REGION, writes)
    return None if put is None else put[2]


def accumulating_in(writes: tuple[Write, ...]) -> Accumulation | None:
    """What accumulates in a block that writes these, or None.

    Args:
        writes: its cells and edits.
    """
    put: Accumulation | None = put_in(ACCUMULATING, writes)
    return put


def is_within_another(held: Iterable[tuple[Cell, Edit, Raw, Raw]]) -> bool:
    """Whether a block that holds these is open within another one that scales, which may step.

    Args:
        held: what it keeps of each cell.
    """
    return any(cell is REGION and found[2] is not None for cell, _, found, _ in held)
