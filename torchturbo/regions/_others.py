"""Who else is at work on a module that is called: then it is not ours to compile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.fx._symbolic_trace

from torchturbo._dynamo import untraced

_dynamo: Any = torch._C._dynamo.eval_frame
has_any_global_hook: Callable[[], Any] = torch.nn.modules.module._has_any_global_hook
# Newer torch warns at the older name.
_fx: Any = torch.fx._symbolic_trace
is_fx_tracing: Callable[[], bool] = getattr(_fx, "is_fx_symbolic_tracing", None) or _fx.is_fx_tracing


@untraced
def left_alone() -> bool:
    """Whether somebody else is at work on what this thread calls: a compiler, a tracer, a transform, or backward."""
    return (
        _dynamo.get_eval_frame_callback() is not None
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._current_graph_task_id() != -1
        # A checkpoint, which compares what is saved here with what its recomputation in backward saves.
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        or is_fx_tracing()
        or (not torch.is_grad_enabled() and _in_checkpoint())
    )


def _in_checkpoint() -> bool:
    """Whether the forward of an autograd.Function calls: a checkpoint does, and calls again in backward.

    The second call has to draw the same random numbers, and may come in another thread, which has no region.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_name == "forward" and code.co_argcount else None
        if isinstance(first, torch._C._FunctionBase):
            return True
        frame = frame.f_back
    return False


def has_hooks(module: torch.nn.Module) -> bool:
    """Whether hooks run around a module itself. Dynamo does not look whether any come or go."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or has_any_global_hook()
    )


def has_its_own(module: torch.nn.Module) -> bool:
    """Whether a module is compiled already, by somebody else."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    frame: Any = sys.modules.get("torch._dynamo.eval_frame")
    return frame is not None and isinstance(module, frame.OptimizedModule)
