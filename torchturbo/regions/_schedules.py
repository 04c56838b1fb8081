"""Steps of learning rate schedulers, which wait with those of their optimizers while gradients accumulate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from torchturbo._dynamo import untraced
from torchturbo.regions._here import thread
from torchturbo.regions._skipping import classes_below

_Step = Callable[..., Any]
_theirs: dict[type, tuple[_Step, _Step]] = {}
"""The steps of the classes of schedulers, and ours."""
_regions = 0


def _waiting(step: _Step) -> _Step:
    @functools.wraps(step)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        here = thread.here
        accumulating = here.accumulating
        # A scheduler that is made takes a first step, and one that is made of others takes theirs.
        if accumulating is None or here.in_scheduler:
            return step(self, *args, **kwargs)
        if getattr(self, "_is_initial", False):
            accumulating.made(self)
            return step(self, *args, **kwargs)
        if not accumulating.schedules(self, args, kwargs):
            return None
        here.in_scheduler = True
        try:
            return step(self, *args, **kwargs)
        finally:
            here.in_scheduler = False

    return untraced(run)


def opened() -> None:
    """Counts a thread that accumulates. Always under the lock of the stack, as `closed` is."""
    global _regions
    _regions += 1
    if _regions == 1:
        kind: Any
        for kind in (LRScheduler, *classes_below(LRScheduler)):
            if "step" in vars(kind) and kind not in _theirs:
                theirs = vars(kind)["step"]
                _theirs[kind] = theirs, _waiting(theirs)
                kind.step = _theirs[kind][1]


def closed() -> None:
    """Counts a thread that accumulates no more."""
    global _regions
    _regions -= 1
    if not _regions:
        kind: Any
        for kind, (theirs, ours) in _theirs.items():
            if vars(kind).get("step") is ours:
                kind.step = theirs
        _theirs.clear()
