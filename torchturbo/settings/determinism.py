"""Deterministic algorithms: the same bits twice, or a warning or an error where torch has no such kernel."""

from __future__ import annotations

import sys
from typing import Any

import torch

from torchturbo.hardware import Hardware
from torchturbo.settings._base import TORCH, Cell, Scope, Setting, Write, cell, choice, simple
from torchturbo.settings._edits import Raw, always, anew, keep
from torchturbo.settings._operations import NAMED, Named

_C: Any = torch._C


def _read_mode() -> tuple[bool, bool]:
    return _C._get_deterministic_algorithms(), _C._get_deterministic_algorithms_warn_only()


def _write_mode(raw: tuple[bool, bool], over: Raw) -> None:
    # Not torch.use_deterministic_algorithms: its first call imports inductor (1-3 s) and overwrites its configuration.
    _C._set_deterministic_algorithms(raw[0], warn_only=raw[1])


MODE = Cell("deterministic algorithms", "process", _read_mode, _write_mode)

_NOT_LOADED = "inductor is not loaded"


def _inductor_entry() -> Any:
    config: Any = sys.modules.get("torch._inductor.config")
    return None if config is None else config._config.get("deterministic")


def _read_inductor() -> Raw:
    entry = _inductor_entry()
    if entry is None:
        return _NOT_LOADED
    return entry.user_override.get() if TORCH >= (2, 12) else entry.user_override


def _write_inductor(raw: Raw, over: Raw) -> None:
    entry = _inductor_entry()
    if entry is None:
        return
    if raw == _NOT_LOADED:
        # Compiling inside the block has loaded inductor: what it starts with is "nobody has set it".
        raw = _unset()
    now = _read_inductor()
    if now is raw or (raw is over and now is not _C._get_deterministic_algorithms()):
        # Not what a compilation makes of it: somebody has set it.
        return
    config: Any = sys.modules["torch._inductor.config"]
    if TORCH >= (2, 12):
        entry.user_override.set(raw)
        config._hash_dirty_var.set(True)
        config._mark_get_dict_dirty("deterministic")
    else:
        entry.user_override = raw
        config._is_dirty = True


def _unset() -> object:
    from torch.utils._config_module import _UNSET_SENTINEL

    return _UNSET_SENTINEL


# From torch 2.12 on, configuration is kept in context variables.
_SCOPE: Scope = "thread" if TORCH >= (2, 12) else "process"
INDUCTOR = Cell("inductor's deterministic", _SCOPE, _read_inductor, _write_inductor)
"""Written by every compilation (torch >= 2.10) from the mode in force, so what we set would stay behind in it."""


def _edits(value: Any, hardware: Hardware) -> tuple[Write, ...]:
    mode = (MODE, always((bool(value), value == "warn"))), (INDUCTOR, keep)
    return (*mode, (NAMED, anew(Named))) if value == "warn" else mode


deterministic = Setting(
    help="Only algorithms that give the same bits twice, else an error, or a warning that names the operation and the "
    "line that called it: torch.use_deterministic_algorithms.",
    values=choice(False, "warn", True, error=True, default=False),
    cells=(MODE,),
    edits=_edits,
    show=lambda raw: raw[0] and ("warn" if raw[1] else True),
)

fill_uninitialized_memory = simple(
    cell("_get_deterministic_fill_uninitialized_memory", "_set_deterministic_fill_uninitialized_memory"),
    help="Fill new tensors while `deterministic` is on (slow): torch.utils.deterministic.fill_uninitialized_memory.",
)
