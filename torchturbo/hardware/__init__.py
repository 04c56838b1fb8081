"""What is here: facts about this machine, asked once, without starting CUDA or changing anything.

A file is a torch device type: ``cuda``, ``cpu``, ``mps``, ``xpu``. `detect` says what the machine is, `readings` what
its GPUs do at this moment.

    >>> from torchturbo import hardware
    >>> machine = hardware.detect()
    >>> machine.device_type in ("cuda", "xpu", "mps", "cpu")
    True
    >>> machine is hardware.detect()
    True
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from torchturbo.hardware import cpu, cuda, mps, xpu
from torchturbo.hardware._base import Build, Cpu, Gpu, Hardware, Mps, Reading, Reason, Xpu
from torchturbo.hardware._ranks import Place, place

__all__ = [
    "Build",
    "Cpu",
    "Gpu",
    "Hardware",
    "Mps",
    "Place",
    "Reading",
    "Reason",
    "Xpu",
    "detect",
    "place",
    "readings",
]


class _StandIn:
    """One pretended machine in force: an object of its own, so that leaving removes that very one."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware


_lock = threading.RLock()
_stand_ins: list[_StandIn] = []
_real: Hardware | None = None
_real_is_final = False
known: Hardware | None = None
"""What `detect` answers with nothing but a look: the newest stand-in, else this machine once that is final."""


def detect() -> Hardware:
    """What this machine is, as far as torch can use it.

    It is asked once in a process, and the same object comes back from then on. Where GPUs could not be
    told for certain before torch started CUDA (no NVML, an AMD or Intel GPU, several slices), it is asked once
    more after that. No call starts a GPU. `torchturbo.testing.pretend_hardware` puts another machine in its place.
    """
    answer = known
    return _look() if answer is None else answer


def readings() -> tuple[Reading, ...]:
    """What each GPU does at this moment, in torch's order: load, memory, power, temperature and clocks.

    Empty where there is no GPU, where NVML does not answer (`detect` has the reason), on AMD, Intel and Apple
    GPUs, and while a machine is pretended, which does nothing that could be read.
    """
    return () if _stand_ins else cuda.readings()


def agreed_on(hardware: Hardware) -> None:
    """From here on this is what `detect` answers in this process.

    Args:
        hardware: this machine's, but for what the machines of other ranks cannot do.
    """
    global _real, _real_is_final
    with _lock:
        # Another object where it says the same, so that who keeps what was decided by the former one decides anew.
        _real, _real_is_final = replace(hardware), True
        _settle()


@contextmanager
def reader() -> Iterator[Callable[[], tuple[Reading, ...]]]:
    """A block in which `readings` can be had again and again, and NVML is opened once."""
    with cuda.reader() as read:
        yield lambda: () if _stand_ins else read()


def _look() -> Hardware:
    global _real, _real_is_final
    found = _real
    if found is not None and not (cuda.has_started() or xpu.has_started()):
        return found
    with _lock:
        if known is not None:  # another thread looked while this one waited
            return known
        _real, _real_is_final = _ask()
        _settle()
        return _real


def _ask() -> tuple[Hardware, bool]:
    gpus = cuda.ask()
    intel = xpu.ask()
    apple, why_no_apple = mps.ask()
    reasons = (*gpus.reasons, *intel.reasons, *why_no_apple)
    return Hardware(_build(), cpu.ask(), gpus.gpus, apple, reasons, intel.xpus), gpus.final and intel.final


def _settle() -> None:
    global known
    known = _stand_ins[-1].hardware if _stand_ins else _real if _real_is_final else None


@contextmanager
def _pretending(hardware: Hardware) -> Iterator[Hardware]:
    stand_in = _StandIn(hardware)
    with _lock:
        _stand_ins.append(stand_in)
        _settle()
    try:
        yield hardware
    finally:
        with _lock:
            _stand_ins.remove(stand_in)
            _settle()


def _build() -> Build:
    return Build(
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        cudnn=_cudnn(),
        magma=bool(torch.cuda.has_magma),
        mkldnn=torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _cudnn() -> int | None:
    # Not torch.backends.cudnn.version(): where there are GPUs, that of torch 2.11 asks their capability and so
    # starts CUDA. A ROCm build would give MIOpen's version here.
    library = getattr(torch._C, "_cudnn", None)
    version: Callable[[], int] | None = getattr(library, "getVersionInt", None)
    return None if version is None or torch.version.hip is not None else version()


if hasattr(os, "register_at_fork"):
    # A child forked while another thread looks would wait for it for ever.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
