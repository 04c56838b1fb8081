"""Keeping autocast off in backward and in optimizer steps, while the loop around them stays under it.

Written by hand, autocast covers the forward pass and the loss, and nothing else: backward computes each gradient in
the precision of its forward operation without it, and optimizers that multiply matrices (Muon, Adafactor) are meant to
do so in float32. So a region notes in its thread that it is open, and two places heed the note: every backward, which
ends in one module global of torch, and the hooks that torch calls around `Optimizer.step`. Both are in place only while
some thread's region is open, and do nothing in threads that have none.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.optim.optimizer as optimizers

from torchturbo._dynamo import untraced
from torchturbo.settings._base import Cell, Raw

_Engine = Callable[..., Any]


class _Here:
    """What a thread's region needs to know.

    Attributes:
        devices: the device types that the region put under autocast; empty where no region is open.
        changes: how often that has changed, so that a region which closes in the middle of a backward or a step is
            not opened again by their end.
        steps: the optimizer steps under way, oldest first.
    """

    __slots__ = ("changes", "devices", "steps")

    def __init__(self) -> None:
        self.devices: tuple[str, ...] = ()
        self.changes = 0
        self.steps: list[_Step] = []


class _Thread(threading.local):
    def __init__(self) -> None:
        self.here = _Here()


_thread = _Thread()


class _Before(NamedTuple):
    """Autocast before it was switched off.

    Attributes:
        changes: of the thread's region, as counted then.
        enabled: whether it was on, by device.
    """

    changes: int
    enabled: list[tuple[str, bool]]


@untraced
def _off(here: _Here) -> _Before:
    """Switches autocast off where the region has put it on, and returns what it was."""
    before = [(device, torch.is_autocast_enabled(device)) for device in here.devices]
    for device in here.devices:
        torch.set_autocast_enabled(device, False)
    return _Before(here.changes, before)


@untraced
def _back(here: _Here, before: _Before) -> None:
    """Returns to what was before, unless the region has changed meanwhile."""
    if here.changes == before.changes:
        for device, enabled in before.enabled:
            torch.set_autocast_enabled(device, enabled)


@untraced
def _run(engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One backward, with autocast off where this thread's region has put it on."""
    here = _thread.here
    if not here.devices:
        return engine(*args, **kwargs)
    if here.steps:
        _heal(here)
    # Copies of weights are kept by an autocast of the user's own inside the region alone; here they go stale.
    torch.clear_autocast_cache()
    before = _off(here)
    try:
        return engine(*args, **kwargs)
    finally:
        _back(here, before)


class _Step(NamedTuple):
    """An optimizer step under way, with autocast off until it ends.

    Attributes:
        frame: the identity of the frame that calls the optimizer.
        before: autocast before the step.
    """

    frame: int
    before: _Before

    @untraced
    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, which is a forward pass and a backward: it runs as the loop around the step does."""

        def run() -> Any:
            here = _thread.here
            before = _off(here)
            _back(here, self.before)
            try:
                return closure()
            finally:
                _back(here, before)

        return untraced(run)


@untraced
def _end(here: _Here, frame: int) -> None:
    """Returns to the state before the step of a frame, and of steps within it that never came to their end."""
    if any(step.frame == frame for step in here.steps):
        while (step := here.steps.pop()).frame != frame:
            pass
        _back(here, step.before)


@untraced
def _running() -> set[int]:
    """The identities of the frames that run in this thread."""
    frame: FrameType | None = sys._getframe(1)
    running = set()
    while frame is not None:
        running.add(id(frame))
        frame = frame.f_back
    return running


@untraced
def _failed_steps(here: _Here) -> Iterator[_Step]:
    """The steps that run no more, but whose exception is still kept and their frames with it; newest first."""
    running = _running()
    while here.steps and here.steps[-1].frame not in running:
        yield here.steps.pop()


@untraced
def _heal(here: _Here) -> None:
    """Returns to the state before the steps that failed."""
    for step in _failed_steps(here):
        _back(here, step.before)


class _Ending:
    """Ends a step that raises, with the arguments it was called with: torch calls no hook after one.

    They die with the frame that calls the optimizer; or before it does, if a hook of the user's gives others.
    """

    __slots__ = ("frame",)

    @untraced
    def __init__(self, frame: int) -> None:
        self.frame = frame

    @untraced
    def __del__(self) -> None:
        here = _thread.here
        if here.steps and self.frame not in _running():
            _end(here, self.frame)


class _Args(tuple[Any, ...]):
    ending: _Ending


class _Kwargs(dict[str, Any]):
    ending: _Ending


@untraced
def _before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = _thread.here
    if not here.devices:
        return None
    if here.steps:
        _heal(here)
    torch.clear_autocast_cache()
    step = _Step(id(sys._getframe(1)), _off(here))
    here.steps.append(step)
    if len(args) > 1 and callable(args[1]):
        args = (args[0], step.around(args[1]), *args[2:])
    if callable(kwargs.get("closure")):
        kwargs = {**kwargs, "closure": step.around(kwargs["closure"])}
    kept_args, kept_kwargs = _Args(args), _Kwargs(kwargs)
    kept_args.ending = kept_kwargs.ending = _Ending(step.frame)
    return kept_args, kept_kwargs


@untraced
def _after_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    here = _thread.here
    if here.steps:
        _end(here, id(sys._getframe(1)))


_KEY: Any = "torchturbo.regions"
_NAME = "_engine_run_backward"
_AUTOGRAD = vars(torch.autograd)
"""Every backward ends in a global of this module, `Tensor.backward` and `torch.autograd.grad` too."""
_BEFORE_STEP = optimizers._global_optimizer_pre_hooks
_AFTER_STEP = optimizers._global_optimizer_post_hooks
"""What torch calls before every `Optimizer.step`, and after every one that returns."""


def _around(engine: _Engine) -> _Engine:
    def run(*args: Any, **kwargs: Any) -> Any:
        return _run(engine, args, kwargs)

    return untraced(run)


class _Watch:
    """The places that heed open regions, in place while there is one in any thread.

    Attributes:
        regions: how many threads have a region open.
        engine: what torch called before.
        ours: what stands in for it.
    """

    __slots__ = ("engine", "ours", "regions")

    def __init__(self) -> None:
        self.regions = 0
        self.engine: _Engine | None = None
        self.ours: _Engine = _run

    def opened(self) -> None:
        """Counts a region that opens. Always under the lock of the stack, as `closed` is."""
        self.regions += 1
        if self.regions == 1:
            engine = _AUTOGRAD[_NAME]
            if engine is not self.engine:
                self.engine, self.ours = engine, _around(engine)
            _AUTOGRAD[_NAME] = self.ours
            _BEFORE_STEP[_KEY] = _before_step
            _AFTER_STEP[_KEY] = _after_step

    def closed(self) -> None:
        """Counts a region that closes."""
        self.regions -= 1
        if not self.regions:
            # Somebody who patched on top of us keeps us in the chain, where we do nothing without an open region.
            if _AUTOGRAD[_NAME] is self.ours:
                _AUTOGRAD[_NAME] = self.engine
            del _BEFORE_STEP[_KEY], _AFTER_STEP[_KEY]


_watch = _Watch()


def _read_region() -> tuple[bool, tuple[str, ...]]:
    here = _thread.here
    if here.steps:
        _heal(here)
    return torch.is_autocast_cache_enabled(), here.devices


def _write_region(raw: tuple[bool, tuple[str, ...]], over: Raw) -> None:
    cache, devices = raw
    here = _thread.here
    if here.steps:
        # Steps that failed in a region end with it: what they would return to is being written away.
        deque(_failed_steps(here), maxlen=0)
    if devices:
        if not here.devices:
            _watch.opened()
    elif here.devices:
        _watch.closed()
    here.devices = devices
    here.changes += 1
    if cache:
        # Copies that an autocast around the region made earlier would come back to life, stale.
        torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(cache)


REGION = Cell("a region's autocast", "thread", _read_region, _write_region)
"""What makes autocast a region in one thread: (whether it keeps cast copies of weights, the device types under it)."""
