"""Takes the witness's reading of a process and of a thread, and compares two of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests.witness import getters, memory, python_state
from tests.witness.getters import Reading, read_all, read_one, text

# Denormal numbers: multiplied up to a normal one (shows whether they are read as zero), and made by a division
# (shows whether they are flushed). Kept as text, because the compiler would fold literals.
SMALLEST_DENORMAL = "0x1p-1074"
SMALLEST_NORMAL = "0x1p-1022"


# Torch 2.8 does not list them itself.
DEVICES = getattr(torch._C, "_autocast_supported_devices", lambda: ("cpu", "cuda", "xpu", "hpu", "xla", "mps"))()


@dataclass(frozen=True)
class Witness:
    """What there is to read here; made once, in the pristine parent, before the first child."""

    getters: tuple[str, ...]
    memory: memory.ContextMemory | None
    globals: python_state.Globals
    numpy: bool

    @classmethod
    def prepare(cls) -> Witness:
        """Look around in this process, which must not have run anything yet."""
        return cls(getters.discover(), memory.locate(), python_state.Globals(), "numpy.random" in sys.modules)

    def read_thread(self) -> Reading:
        """The calling thread's view: every getter (many answer per thread), autocast per device, modes, threads."""
        found = read_all(self.getters)
        for device in DEVICES:
            found[f"autocast enabled, {device}"] = read_one(torch.is_autocast_enabled, device)
            found[f"autocast dtype, {device}"] = read_one(torch.get_autocast_dtype, device)
        found["autocast nesting"] = text(_autocast_nesting())
        found["torch function modes"] = read_one(torch._C._len_torch_function_stack)
        found["torch dispatch modes"] = read_one(torch._C._len_torch_dispatch_stack)
        found["dispatch keys included"] = read_one(lambda: repr(torch._C._dispatch_tls_local_include_set()))
        found["dispatch keys excluded"] = read_one(lambda: repr(torch._C._dispatch_tls_local_exclude_set()))
        found["default device"] = read_one(_default_device)
        found["denormals are zero"] = text(float.fromhex(SMALLEST_DENORMAL) * 2.0**60 == 0.0)
        found["denormals are flushed"] = text(float.fromhex(SMALLEST_NORMAL) / 2.0 == 0.0)
        return found | python_state.read_configurations()

    def read_memory(self) -> Reading:
        """The global context's bytes and raw cells, where they can be read."""
        # To ask for the preferred BLAS library is to choose it, in torch: nobody can look and leave it open.
        read_one(torch._C._get_blas_preferred_backend)
        return self.memory.read() if self.memory else {}

    def read(self, *, thorough: bool = True) -> Reading:
        """Everything that can be read from this thread, and what a thread that starts now sees."""
        found = self.read_thread() | self.read_memory()
        found |= self.globals.read(thorough=thorough) | python_state.read_python_state(self.numpy)
        fresh = in_new_thread(self.read_thread)
        return found | {f"{name} [new thread]": value for name, value in fresh.items()}


def _autocast_nesting() -> int:
    depth = int(torch.autocast_increment_nesting()) - 1
    torch.autocast_decrement_nesting()
    return depth


def _default_device() -> object:
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return getattr(context, "device", "unset")


def in_new_thread(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a thread of its own."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


def differences(expected: Reading, found: Reading) -> list[str]:
    """Where two readings differ, one line each, in words."""
    return [
        f"{name}: should be {expected.get(name, 'absent')}, is {found.get(name, 'absent')}"
        for name in sorted(expected.keys() | found.keys(), key=lambda name: (name.startswith("probe"), name))
        if expected.get(name) != found.get(name)
    ]
