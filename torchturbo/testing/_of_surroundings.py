"""What torch reads around itself: environment variables, processes, and the configuration of the compiler.

Nothing is imported to be looked at.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch

from torchturbo.testing._thing import Raw, Thing, Things, said


def of_surroundings() -> Iterator[Thing]:
    """Processes, the environment, and what the compiler is told."""
    yield Thing("start_method", "torch.multiprocessing.set_start_method", _start_method, _set_start_method)
    yield Thing(
        "process_group",
        "torch.distributed.init_process_group",
        _process_group,
        _end_process_group,
        lambda raw: repr(raw[0]),
        lambda was, now: bool(was[0] == now[0]),
        advice=said("call torch.distributed.destroy_process_group() in the end"),
    )
    yield Things(
        "environment",
        "os.environ[{!r}]",
        environment,
        _set_variable,
        advice=said("monkeypatch.setenv and monkeypatch.delenv put it back"),
    )
    yield Things(
        "compiler_config",
        "{}",
        compiler_configs,
        _set_config,
        advice=said("its module's patch(...) puts it back: with torch._dynamo.config.patch(...)"),
    )


# -------------------------------------------------------------------------------------------------------- processes


def _start_method() -> str:
    # Whoever first starts a process has Python decide, which changes nothing of what would have been.
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _set_start_method(was: str, now: str) -> None:
    # Whoever has not asked for one may do so later, once.
    default = multiprocessing.get_all_start_methods()[0]
    multiprocessing.set_start_method(None if was == default else was, force=True)


def _process_group() -> tuple[bool, Any]:
    """Whether there is one, and the hook for exceptions, which making it replaces and nothing puts back."""
    loaded = sys.modules.get("torch.distributed.distributed_c10d")
    return loaded is not None and bool(loaded.is_initialized()), sys.excepthook


def _end_process_group(was: tuple[bool, Any], now: tuple[bool, Any]) -> None:
    if now[0] and not was[0]:
        torch.distributed.destroy_process_group()
        sys.excepthook = was[1]


# ------------------------------------------------------------------------------------------------------ environment

_READ_BY_TORCH = (
    "ATEN_", "CUBLAS", "CUDA_", "CUDNN_", "DNNL_", "GLOO_", "GOMP_", "INDUCTOR_", "KINETO_", "KMP_", "MKL_", "NCCL_",
    "NVIDIA_TF32_OVERRIDE", "OMP_", "ONEDNN_", "PYTORCH_", "TORCH", "TRITON_",
)  # fmt: skip
_LOCAL = {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PYTHONHASHSEED"}
_SET_BY_TORCH = {"TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TRITON_CACHE_DIR"}
"""Written when the compiler or OpenMP is first loaded, for good."""


def is_read_by_torch(name: str) -> bool:
    """Whether it is an environment variable that torch, or what it stands on, looks at."""
    if name == "CUBLAS_WORKSPACE_CONFIG":
        return False  # an option holds it
    return (name.startswith(_READ_BY_TORCH) or name in _LOCAL) and name not in _SET_BY_TORCH


def environment() -> dict[str, str]:
    """The environment variables that torch reads."""
    return {name: os.environ[name] for name in os.environ if is_read_by_torch(name)}


def _set_variable(name: str, was: tuple[str] | None) -> None:
    if was is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = was[0]


# --------------------------------------------------------------------------------------------------------- compiler

CONFIGS = ("torch._dynamo.config", "torch._functorch.config", "torch._inductor.config", "torch.compiler.config")
_BY_COMPILING = {"torch._inductor.config.deterministic"}
"""Written by every compilation."""


def compiler_configs() -> dict[str, Raw]:
    """What somebody has set in the configurations that are loaded, other than what it starts with."""
    found = {}
    for module in CONFIGS:
        for key, entry in getattr(sys.modules.get(module), "_config", {}).items():
            value = _override(entry)
            # Reading a list makes a copy of it and keeps that as if somebody had set it.
            if value is not _unset() and value != entry.default and f"{module}.{key}" not in _BY_COMPILING:
                found[f"{module}.{key}"] = value
    return found


def _override(entry: Any) -> Raw:
    override = entry.user_override
    # In a context variable since torch 2.12.
    return override.get() if isinstance(override, ContextVar) else override


def _unset() -> Raw:
    module: Any = sys.modules["torch.utils._config_module"]
    return module._UNSET_SENTINEL


def _set_config(name: str, was: tuple[Raw] | None) -> None:
    module, _, key = name.rpartition(".")
    config: Any = sys.modules[module]
    raw = _unset() if was is None else was[0]
    entry = config._config[key]
    if isinstance(entry.user_override, ContextVar):
        entry.user_override.set(raw)
        config._hash_dirty_var.set(True)
        config._mark_get_dict_dirty(key)
    else:
        entry.user_override = raw
        config._is_dirty = True
