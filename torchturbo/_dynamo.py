"""Keeping `torch.compile` out of our own code, without importing it, as `torch.compiler.disable` does, for seconds.

Dynamo looks at two things: where it would trace through a call, at a mark on the function, and breaks the graph there;
where it meets a frame that runs, at what its code object has been set to.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F, *, and_below: bool = False) -> F:
    """Has Dynamo run a function as it is.

    Args:
        function: one of ours.
        and_below: so too whatever it calls.
    """
    marked: Any = function
    marked._torchdynamo_disable = True
    marked._torchdynamo_disable_msg = None
    run_as_it_is(marked.__code__, and_below=and_below)
    return function


def run_as_it_is(code: CodeType, *, and_below: bool = False) -> None:
    """Has Dynamo leave the frames of a code object alone.

    Args:
        code: of one of our functions.
        and_below: so too the frames that these call.
    """
    dynamo: Any = torch._C._dynamo.eval_frame
    skip = dynamo._FrameAction.SKIP
    below = skip if and_below else dynamo._FrameAction.DEFAULT
    dynamo.set_code_exec_strategy(code, dynamo._FrameExecStrategy(skip, below))
