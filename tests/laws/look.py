"""A quick independent look at torch's state: dear enough to be complete, cheap enough for every step of every test.

It goes where `tests.witness` found that there is something to read (every no-argument getter of ``torch._C``, the bytes
of ``at::Context``), and keeps the answers as they are instead of as text. torchturbo's cells are not asked.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.optim.optimizer as optimizers

from tests.witness.memory import BACKENDS, OPERATIONS, PRECISIONS
from tests.witness.reading import DEVICES, Witness

State = dict[str, Any]

# The environment of the test run itself, and what libraries set for good when they are first loaded.
NOT_OURS = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "COVERAGE_")


@cache
def witness() -> Witness:
    """What there is to look at; found out once, before any test has run anything."""
    return Witness.prepare()


@cache
def _getters() -> tuple[tuple[str, Callable[[], Any]], ...]:
    return tuple((name, getattr(torch._C, name)) for name in witness().getters)


def look() -> State:
    """Everything that this thread can see now."""
    found: State = {}
    for name, getter in _getters():
        try:
            found[name] = getter()
        except Exception as error:
            found[name] = f"raises {error}"
    for device in DEVICES:
        found[f"autocast {device}"] = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    found["autocast nesting"] = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    found["default device"] = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    found["environment"] = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    found["warnings"] = list(warnings.filters), warnings.showwarning
    found["hooks"] = sys.excepthook, sys.unraisablehook, threading.excepthook, sys.getswitchinterval()
    found["backward"] = torch.autograd._engine_run_backward, torch.autograd.graph._engine_run_backward
    found["fast path"] = torch.backends.mha.get_fastpath_enabled
    found["optimizer hooks"] = (
        dict(optimizers._global_optimizer_pre_hooks),
        dict(optimizers._global_optimizer_post_hooks),
    )
    found["module calls"] = torch.nn.Module.__call__, torch.nn.Module.__call__.__code__
    found["what hears Dynamo"] = list(logging.getLogger("torch._dynamo.convert_frame").filters)
    found["inductor"] = _inductor()
    found["random numbers"] = random_numbers()
    return found | _context()


def random_numbers() -> Any:
    """Where every stream of random numbers stands, and what seeds wait for devices to start."""
    numpy = sys.modules.get("numpy.random")
    legacy = (
        ()
        if numpy is None
        else tuple(str(part.tolist() if hasattr(part, "tolist") else part) for part in numpy.get_state())
    )
    queues = [vars(module._lazy_seed_tracker).copy() for module in (torch.cuda, torch.xpu)]
    return random.getstate(), legacy, torch.get_rng_state().tolist(), queues


def _inductor() -> Any:
    entry = getattr(sys.modules.get("torch._inductor.config"), "_config", {}).get("deterministic")
    override = getattr(entry, "user_override", None)
    return override.get(None) if hasattr(override, "get") else override


def _context() -> State:
    """The bytes of at::Context, and the raw precision cells that its table points to."""
    memory = witness().memory
    if memory is None:
        return {}
    return {"at::Context": ctypes.string_at(memory.address, memory.length), "precision": raw_precision()}


def raw_precision() -> dict[str, str]:
    """The raw cells of float32 precision, as they stand in memory; empty where they cannot be read."""
    return {name: PRECISIONS[ctypes.c_int.from_address(at).value] for name, at in precision_cells().items()}


def precision_cells() -> dict[str, int]:
    """Where each raw cell of float32 precision lies, by ``backend/operation``."""
    memory = witness().memory
    if memory is None or memory.table is None:
        return {}
    found = {}
    # A hash table of libstdc++: the third word is the first node; a node is (next, backend, operation, precision).
    node = ctypes.c_uint64.from_address(memory.address + memory.table + 16).value
    while node:
        backend, operation = (ctypes.c_int.from_address(node + at).value for at in (8, 12))
        found[f"{BACKENDS[backend]}/{OPERATIONS[operation]}"] = node + 16
        node = ctypes.c_uint64.from_address(node).value
    return found


def differences(before: State, after: State) -> str:
    """What differs between two looks, in words; empty if nothing does."""
    if before == after:
        return ""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, "absent"), after.get(name, "absent")
        if was != now:
            if isinstance(was, dict) and isinstance(now, dict):
                was, now = ({k: d[k] for k in d if was.get(k, d) != now.get(k, d)} for d in (was, now))
            lines.append(f"{name}: {was!r:.200} -> {now!r:.200}")
    return "; ".join(lines)
