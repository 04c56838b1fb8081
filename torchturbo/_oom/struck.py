"""What is out of memory: the errors that say so, where they struck, and what they keep alive."""

from __future__ import annotations

import gc
import os
import traceback
from typing import Literal

import torch
import torch.distributed

Phase = Literal["forward", "backward", "the optimizer's step"]
_SAY_SO = (
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory",
    "out of memory",  # MPS, XPU, and CUDA where it is no allocation of torch's
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no more memory.

    Args:
        error: any.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAY_SO)


_TORCH = os.path.dirname(torch.__file__)
_OPTIMIZERS, _AUTOGRAD = (os.path.join(_TORCH, *path) for path in (("optim", ""), ("autograd", "")))


def phase_of(error: BaseException) -> Phase:
    """Where in a step an error has come.

    Args:
        error: it, with its traceback.
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any(file.startswith(_OPTIMIZERS) for file in files):
        return "the optimizer's step"
    if any(file.startswith(_AUTOGRAD) and file.endswith(("graph.py", "__init__.py")) for file in files):
        return "backward"
    return "forward"


def is_with_others() -> bool:
    """Whether other processes take part in a step."""
    group = torch.distributed
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1


def let_go(error: BaseException) -> None:
    """Lets go of what the frames of an error hold, which is the whole graph, and gives what is free to the device.

    Args:
        error: it, and those that it came of.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += each.__cause__, each.__context__
    gc.collect()
    for module in (torch.cuda, torch.xpu, torch.mps):
        started = getattr(module, "is_initialized", module.is_available)
        if module.is_available() and started():
            module.empty_cache()
