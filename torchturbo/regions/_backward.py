"""Keeping autocast off in backward and in optimizer steps, while the loop around them stays under it.

Written by hand, autocast covers the forward pass and the loss, and nothing else: backward computes each gradient in
the precision of its forward operation without it, and optimizers that multiply matrices (Muon, Adafactor) are meant to
do so in float32. So a region notes in its thread that it is open, and two places heed the note: every backward, which
ends in one module global of torch, and the hooks that torch calls before `Optimizer.step`. Both are in place only while
some thread's region is open, and do nothing in threads that have none.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
        steps: the optimizer steps under way, oldest first.
    """

    __slots__ = ("devices", "steps")

    def __init__(self) -> None:
        self.devices: tuple[str, ...] = ()
        self.steps: list[_Step] = []


class _Thread(threading.local):
    def __init__(self) -> None:
        self.here = _Here()


_thread = _Thread()


@untraced
def _off(devices: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Switches autocast off for `devices`, and returns what it was."""
    before = [(device, torch.is_autocast_enabled(device)) for device in devices]
    for device in devices:
        torch.set_autocast_enabled(device, False)
    return before


@untraced
def _back(before: Iterable[tuple[str, bool]]) -> None:
    for device, enabled in before:
        torch.set_autocast_enabled(device, enabled)


@untraced
def _run(engine: _Engine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One backward, with autocast off where this thread's region has put it on."""
    here = _thread.here
    if not here.devices:
        return engine(*args, **kwargs)
    if here.steps:
        _heal()
    before = _off(here.devices)
    try:
        return engine(*args, **kwargs)
    finally:
        _back(before)


class _Step(NamedTuple):
    """An optimizer step under way, with autocast off until it ends.

    Attributes:
        frame: the identity of the frame that calls the optimizer.
        before: autocast before the step, by device.
    """

    frame: int
    before: list[tuple[str, bool]]

    @untraced
    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, which is a forward pass and a backward: it runs as the loop around the step does."""

        def run() -> Any:
            before = _off(tuple(device for device, _ in self.before))
            _back(self.before)
            try:
                return closure()
            finally:
                _back(before)

        return untraced(run)


@untraced
def _end(step: _Step) -> None:
    """Returns to the state before a step, if it is the newest of this thread."""
    steps = _thread.here.steps
    if steps and steps[-1] is step:
        _back(steps.pop().before)


@untraced
def _failed_steps() -> Iterator[_Step]:
    """The steps that run no more, but whose exception is still kept and their frames with it; newest first."""
    frame: FrameType | None = sys._getframe(1)
    running = set()
    while frame is not None:
        running.add(id(frame))
        frame = frame.f_back
    steps = _thread.here.steps
    while steps and steps[-1].frame not in running:
        yield steps.pop()


@untraced
def _heal() -> None:
    """Returns to the state before the steps that failed."""
    for step in _failed_steps():
        _back(step.before)


class _Ending:
    """Ends a step with the last of the arguments it was called with, whether it returns or raises.

    torch calls no hook after a step that raises; but the arguments die with the frame that calls the optimizer.
    """

    __slots__ = ("step",)

    @untraced
    def __init__(self, step: _Step) -> None:
        self.step = step

    @untraced
    def __del__(self) -> None:
        _end(self.step)


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
        _heal()
    step = _Step(id(sys._getframe(1)), _off(here.devices))
    here.steps.append(step)
    if len(args) > 1 and callable(args[1]):
        args = (args[0], step.around(args[1]), *args[2:])
    if callable(kwargs.get("closure")):
        kwargs = {**kwargs, "closure": step.around(kwargs["closure"])}
    kept_args, kept_kwargs = _Args(args), _Kwargs(kwargs)
    kept_args.ending = kept_kwargs.ending = _Ending(step)
    return kept_args, kept_kwargs


_KEY: Any = "torchturbo.regions"
_NAME = "_engine_run_backward"
_AUTOGRAD = vars(torch.autograd)
"""Every backward ends in a global of this module, `Tensor.backward` and `torch.autograd.grad` too."""
_STEP_HOOKS = optimizers._global_optimizer_pre_hooks
"""What torch calls before every `Optimizer.step`."""


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

    def count(self, change: int) -> None:
        """Counts a region that opens (1) or closes (-1). Always under the lock of the stack."""
        self.regions += change
        if self.regions and change == self.regions:
            engine = _AUTOGRAD[_NAME]
            if engine is not self.engine:
                self.engine, self.ours = engine, _around(engine)
            _AUTOGRAD[_NAME] = self.ours
            _STEP_HOOKS[_KEY] = _before_step
        elif not self.regions:
            # Somebody who patched on top of us keeps us in the chain, where we do nothing without an open region.
            if _AUTOGRAD[_NAME] is self.ours:
                _AUTOGRAD[_NAME] = self.engine
            del _STEP_HOOKS[_KEY]


_watch = _Watch()


def _read_region() -> tuple[bool, tuple[str, ...]]:
    here = _thread.here
    if here.steps:
        _heal()
    return torch.is_autocast_cache_enabled(), here.devices


def _write_region(raw: tuple[bool, tuple[str, ...]], over: Raw) -> None:
    cache, devices = raw
    here = _thread.here
    if here.steps:
        # Steps that failed in a region end with it: what they would return to is being written away.
        deque(_failed_steps(), maxlen=0)
    if (not devices) is not (not here.devices):
        _watch.count(1 if devices else -1)
    here.devices = devices
    if cache:
        # Copies that an autocast around the region made earlier would come back to life, stale.
        torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(cache)


REGION = Cell("a region's autocast", "thread", _read_region, _write_region)
"""What makes autocast a region in one thread: (whether it keeps cast copies of weights, the device types under it)."""
