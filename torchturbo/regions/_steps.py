"""Keeping autocast off in optimizer steps: some multiply matrices (Muon, Adafactor), and are meant to do so in float32.

torch calls hooks around every `Optimizer.step`, but none after one that raises; so a step that failed is noticed later,
by its arguments, which die with the frame that was given them, or by the next that finds its frame gone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.optim.optimizer as optimizers

from torchturbo._dynamo import untraced
from torchturbo.regions._here import Before, Here, back, off, on_again, set_after, thread

KEY: Any = "torchturbo.regions"
BEFORE_STEP = optimizers._global_optimizer_pre_hooks
AFTER_STEP = optimizers._global_optimizer_post_hooks
"""What torch calls before every `Optimizer.step`, and after every one that returns. The latter is there once a step has
begun in a region, so that regions without one are spared it."""


def hear_steps(who: object, before: Callable[..., Any], after: Callable[..., Any]) -> None:
    """Has torch tell of each `Optimizer.step`, in whatever thread, until `hear_no_steps`.

    Args:
        who: wants it.
        before: is called before each, with the optimizer, and the arguments as a tuple and a dictionary.
        after: so too after each that returns.
    """
    key: Any = who
    BEFORE_STEP[key], AFTER_STEP[key] = before, after


def hear_no_steps(who: object) -> None:
    """Ends what `hear_steps` has begun, if it has.

    Args:
        who: wants it no more.
    """
    key: Any = who
    BEFORE_STEP.pop(key, None)
    AFTER_STEP.pop(key, None)


class Step(NamedTuple):
    """An optimizer step under way, with autocast off until it ends.

    Attributes:
        frame: the identity of the frame that calls the optimizer.
        before: autocast before the step.
    """

    frame: int
    before: Before

    @untraced
    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, which is a forward pass and a backward: it runs as the loop around the step does."""

        def run() -> Any:
            here = thread.here
            before = off(here)
            back(here, self.before)
            try:
                return closure()
            finally:
                set_after(here, False)
                back(here, before)

        return untraced(run)


@untraced
def _end(here: Here, frame: int) -> None:
    """Returns to the state before the step of a frame, and of steps within it that never came to their end."""
    if any(step.frame == frame for step in here.steps):
        while (step := here.steps.pop()).frame != frame:
            pass
        back(here, step.before)


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
def failed_steps(here: Here) -> Iterator[Step]:
    """The steps that run no more, but whose exception is still kept and their frames with it; newest first."""
    running = _running()
    while here.steps and here.steps[-1].frame not in running:
        yield here.steps.pop()


@untraced
def heal(here: Here) -> None:
    """Returns to the state before the steps that failed."""
    for step in failed_steps(here):
        back(here, step.before)


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
        here = thread.here
        if here.steps and self.frame not in _running():
            _end(here, self.frame)


class _Args(tuple[Any, ...]):
    ending: _Ending


class _Kwargs(dict[str, Any]):
    ending: _Ending


@untraced
def before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Switches autocast off for a step in a region, and has what comes after it heard."""
    here = thread.here
    if not here.devices or here.stepping:
        return None
    if here.steps:
        heal(here)
    if here.after:
        on_again(here)
    torch.clear_autocast_cache()
    AFTER_STEP[KEY] = _after_step
    step = Step(id(sys._getframe(1)), off(here))
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
    here = thread.here
    if here.steps:
        _end(here, id(sys._getframe(1)))
