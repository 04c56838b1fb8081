"""Reads what torch and Python keep in Python: environment, warnings, generators, hooks, replaced functions."""

from __future__ import annotations

import contextvars
import ctypes
import hashlib
import logging
import os
import random
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from tests.witness.getters import Reading, read_one, text

# Modules of which every global is watched. They are looked up among those loaded: nothing is imported to be watched.
WATCHED = (
    "torch.amp.autocast_mode",
    "torch.autograd",
    "torch.autograd.anomaly_mode",
    "torch.autograd.function",
    "torch.autograd.grad_mode",
    "torch.autograd.graph",
    "torch.nn.modules.module",
    "torch.nn.parameter",
    "torch.optim.optimizer",
    "torch.overrides",
    "torch.random",
    "torch.utils.deterministic",
    "torch.utils._device",
    "warnings",
)
# Watched in a thorough reading only: to look at many objects of the parent costs a child a copy of their pages.
WATCHED_TOO = (
    "contextlib",
    "random",
    "threading",
    "torch",
    "torch._C",
    "torch._jit_internal",
    "torch._tensor",
    "torch.amp.grad_scaler",
    "torch.cpu",
    "torch.cpu.amp.autocast_mode",
    "torch.cuda",
    "torch.cuda.amp.autocast_mode",
    "torch.functional",
    "torch.mps",
    "torch.nn.attention",
    "torch.nn.functional",
    "torch.optim.lr_scheduler",
    "torch.serialization",
    "torch.utils._contextlib",
    "torch.utils._foreach_utils",
    "torch.utils.checkpoint",
    "torch.utils.data",
    "torch.utils.data.dataloader",
)
WATCHED_CLASSES = (
    "Tensor",
    "Module",
    "Optimizer",
    "Parameter",
    "Function",
    "autocast",
    "GradScaler",
    "DataLoader",
    "Thread",
)
CONFIGURATIONS = (
    "torch._dynamo.config",
    "torch._functorch.config",
    "torch._inductor.config",
    "torch.compiler.config",
    "torch.fx.experimental._config",
)

CONTAINERS = (dict, list, set, OrderedDict)
PLAIN = (bool, int, float, str, type(None))
NOT_STATE = ("__dict__", "__builtins__", "__warningregistry__", "__abstractmethods__", "_abc_impl")

# Globals that move by being used, and say nothing about what torch will compute.
MOVES_BY_ITSELF = {
    "threading._active",
    "threading._counter",
    "threading._dangling",
    "threading._limbo",
    "threading._shutdown_locks",
    "warnings._filters_version",
    "torch.random.default_generator",
}


class Globals:
    """The globals of torch's modules and classes as they are now, to tell later which were replaced.

    A function of torch that was patched and not put back is caught here, whichever it is.
    """

    def __init__(self) -> None:
        # The objects are kept, so that their ids stay theirs.
        self._before = dict(self._everything(thorough=True))
        self._known = {id(value) for value in self._before.values()}

    def _everything(self, thorough: bool) -> Iterator[tuple[str, Any]]:
        for module_name in _watched_modules(thorough):
            module = sys.modules[module_name]
            for name, value in list(vars(module).items()):
                yield f"{module_name}.{name}", value
                if isinstance(value, type) and name in WATCHED_CLASSES:
                    for attribute, member in list(vars(value).items()):
                        yield f"{module_name}.{name}.{attribute}", member

    def read(self, *, thorough: bool) -> Reading:
        """The globals that are other objects than at the start, and what small containers hold (hooks live in them)."""
        found: Reading = {}
        now = dict(self._everything(thorough))
        for name, value in now.items():
            container = type(value) in CONTAINERS and len(value) <= 20
            if (not container and self._before.get(name, found) is value) or name in MOVES_BY_ITSELF:
                continue
            if isinstance(value, ModuleType):
                continue  # imported since: a module's name in its package says no more
            if not name.endswith(NOT_STATE):
                found[name] = text(value) if container or isinstance(value, PLAIN) else self._object(value)
        gone = self._before.keys() - now.keys() if thorough else ()
        return found | dict.fromkeys(gone, "is gone")

    def _object(self, value: Any) -> str:
        if id(value) in self._known:
            return f"the {type(value).__name__} #{id(value)} that was there at the start"
        return f"a new {type(value).__name__}"


def _watched_modules(thorough: bool) -> list[str]:
    names = list(WATCHED)
    if thorough:
        names += [*WATCHED_TOO, *sorted(name for name in sys.modules if name.startswith("torch.backends"))]
    return [name for name in names if name in sys.modules]


def read_python_state(numpy_too: bool) -> Reading:
    """Everything outside ``torch._C`` that a block could leave changed in this process.

    NumPy's generator is seeded by chance when it is imported: only one that was there before the fork is compared.
    """
    found: Reading = {
        "warnings.filters": text(list(warnings.filters)),
        "warnings.showwarning": str(id(warnings.showwarning)),
        "random": _digest(repr(random.getstate()).encode()),
        "torch CPU generator": _digest(bytes(torch.get_rng_state().tolist())),
        "torch.cuda seeds queued": _queued_seeds("torch.cuda"),
        "torch.xpu seeds queued": _queued_seeds("torch.xpu"),
        "torch.cuda.is_initialized()": read_one(torch.cuda.is_initialized),
        "deterministic_debug_mode": read_one(torch.get_deterministic_debug_mode),
        "sys hooks": text([id(sys.excepthook), id(sys.unraisablehook), id(threading.excepthook)]),
        # What runs behind a name that is watched elsewhere, and who takes lines out of the compiler's log.
        "Module.__call__ runs": str(id(torch.nn.Module._wrapped_call_impl.__code__)),
        "filters of Dynamo's log": text(list(map(id, logging.getLogger("torch._dynamo.convert_frame").filters))),
        "sys.getprofile()": text(sys.getprofile()),
        "sys.getswitchinterval()": text(sys.getswitchinterval()),
        "threads": text(sorted(type(thread).__name__ for thread in threading.enumerate())),
    }
    if numpy_too:
        found["numpy.random"] = _digest(repr(sys.modules["numpy.random"].get_state()).encode())
    found |= {f"os.environ[{name}]": value for name, value in os.environ.items()}
    found |= {f"environment of C, {name}": value for name, value in _environment_of_c().items()}
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _queued_seeds(module: str) -> str:
    tracker = getattr(sys.modules[module], "_lazy_seed_tracker", None)
    if tracker is None:
        return "no tracker"
    waiting = [tracker.manual_seed_all_cb, tracker.manual_seed_cb, *tracker.call_order]
    seeds = [call and _queued(call[0]) for call in waiting]
    return text([seeds, [_queued(call) for call, _ in sys.modules[module]._queued_calls]])


def _queued(call: Any) -> str:
    """What is queued, and the seed that it does it with."""
    with_it = [cell.cell_contents for cell in getattr(call, "__closure__", None) or ()]
    return text([getattr(call, "__qualname__", type(call).__qualname__), with_it])


def _environment_of_c() -> dict[str, str]:
    """The environment as C's getenv sees it, which is what cuBLAS and OpenMP ask; ``os.environ`` is a copy."""
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found = {}
    at = 0
    while (entry := entries[at]) is not None:
        name, _, value = entry.decode(errors="surrogateescape").partition("=")
        found[name] = value
        at += 1
    return found


def read_configurations() -> Reading:
    """What the user has set in the compiler's configurations, without importing any of them.

    A configuration that is not loaded reads as one in which nothing has been set.
    """
    found: Reading = {}
    for name in CONFIGURATIONS:
        entries = getattr(sys.modules.get(name), "_config", {})
        for key, entry in entries.items():
            override = entry.user_override
            if isinstance(override, contextvars.ContextVar):  # since 2.12
                override = override.get(None)
            # "Nothing set" is a sentinel object without a value of its own, or None in a fresh context.
            if override is not None and type(override) is not object and "UNSET" not in repr(override).upper():
                found[f"{name}.{key}"] = text(override)
    stance = getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None)
    if stance is not None and stance.stance != "default":
        found["torch.compiler stance"] = text(stance.stance)
    return found
