"""The memory that torch's allocator of a GPU keeps: how it cuts it, and what it gives back."""

from __future__ import annotations

import gc
import os
import re
import threading
from typing import Any

import torch

from torchturbo.hardware import Hardware
from torchturbo.settings._base import BOOL, TORCH, Cell, Values, same, simple
from torchturbo.settings._edits import Raw
from torchturbo.settings._variables import variable

_VARIABLE = "PYTORCH_ALLOC_CONF" if TORCH >= (2, 10) else "PYTORCH_CUDA_ALLOC_CONF"
"""torch 2.9 and older do not heed all of it under the newer name."""


def _gpu_only(hardware: Hardware, value: Any) -> str | None:
    return None if hardware.gpus else "it is about the memory of NVIDIA GPUs, and there is none here"


# --------------------------------------------------------------------------------------------------------- allocator

_variable = variable(_VARIABLE)


class _Started:
    """What the allocator has been started with: once it is known, that stays."""

    known = False
    value: str | None = None


_started = _Started()


def _write_variable(raw: str | None, over: Raw) -> None:
    cuda: Any = torch.cuda
    if not _started.known and cuda.is_initialized():
        _started.known, _started.value = True, over
    _variable.write(raw, over)


def _told() -> str | None:
    asked = os.environ.get(_VARIABLE)
    if asked is None or not _started.known or _started.value == asked:
        return None
    with_it = "without it" if _started.value is None else f"with {_VARIABLE}={_started.value}"
    return (
        f"CUDA was started {with_it} and goes on so: what it has been told cannot be read again, and so not be put "
        f"back. Start Python with `{_VARIABLE}={asked} python ...`, or by `torchturbo run`; processes that are started "
        "in the block have it"
    )


alloc_conf = simple(
    Cell(_VARIABLE, "process", _variable.read, _write_variable),
    help=f"How torch's allocator cuts GPU memory, which it reads when CUDA starts: the environment's {_VARIABLE}.",
    values=Values(
        kind=str,
        rule=lambda text: (
            None
            if re.fullmatch(r"\w+:[^\s,]+(,\w+:[^\s,]+)*", text)
            else "expected NAME:VALUE,..., as 'expandable_segments:True' or 'max_split_size_mb:128'"
        ),
    ),
    why_not=_gpu_only,
)
alloc_conf.told = _told

# ------------------------------------------------------------------------------------------------------------- cache


class _Here(threading.local):
    """Whether a thread's block has asked for it."""

    def __init__(self) -> None:
        self.wanted = False


_here = _Here()


def _write_emptied(raw: Raw, over: Raw) -> None:
    if raw and not _here.wanted:
        # What waits for the collector holds memory too.
        gc.collect()
        cuda: Any = torch.cuda
        if cuda.is_initialized():
            cuda.empty_cache()
    _here.wanted = bool(raw)


empty_cache = simple(
    Cell("a region's empty cache", "thread", lambda: _here.wanted, _write_emptied),
    help="Collect garbage and give the GPU's unused memory back on entry, once: torch.cuda.empty_cache.",
    values=BOOL,
    why_not=_gpu_only,
    raw=same,
)
