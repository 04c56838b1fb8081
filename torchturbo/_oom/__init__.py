"""`accelerate(on_oom=...)`: a step that runs out of memory is taken in parts of its batch, or says what used it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torchturbo._oom.step import Step
from torchturbo._turbo import turbo

OnOom = Literal["split", "raise"]


def stepping(call: Callable[..., Any], step: Callable[..., Any], around: turbo, on_oom: OnOom) -> Callable[..., Any]:
    """An accelerated step that heeds what happens where memory runs out.

    Args:
        call: the accelerated step.
        step: the step as it was written.
        around: the block that it runs in.
        on_oom: ``"split"`` or ``"raise"``.
    """
    its = Step(call, step, around)
    heeding = its.split if on_oom == "split" else its.explained

    def run(*args: Any, **kwargs: Any) -> Any:
        return heeding(args, kwargs)

    return run
