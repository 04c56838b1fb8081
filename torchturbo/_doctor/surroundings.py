"""What is around this process, beyond what a report knows: compilers, limits, packages, and what others ask for."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torchturbo import _sources, hardware
from torchturbo._sources import PREFIX, Sources
from torchturbo.errors import TurboError
from torchturbo.hardware import _room

_DISTRIBUTIONS = ("nvidia-ml-py", "pynvml", "triton", "pytorch-triton", "triton-windows")


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something that others than the code ask for, and that is refused.

    Attributes:
        variable: the environment variable that asks; None for a file.
        says: the error's own sentence, which says where.
    """

    variable: str | None
    says: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around this process.

    Attributes:
        environ: the environment.
        quota: the cores that its control group may keep busy; None where there is no limit.
        shared_memory: bytes free in /dev/shm; None where there is none.
        cxx: the C++ compiler that inductor calls.
        has_cxx: whether it is there.
        has_cc: whether there is a C compiler, which Triton calls.
        has_headers: whether Python's own headers are here, which compiled code includes.
        installed: versions of the distributions that matter, by name; others of them are not installed.
        boards: NVIDIA's GPUs on the PCI bus, seen without any driver.
        cuda_started: whether this process uses a GPU itself.
        sources: what others than the code ask for, without what is refused.
        mistakes: what of it is refused.
    """

    environ: Mapping[str, str]
    quota: float | None
    shared_memory: int | None
    cxx: str
    has_cxx: bool
    has_cc: bool
    has_headers: bool
    installed: Mapping[str, str]
    boards: int
    cuda_started: bool
    sources: Sources
    mistakes: tuple[Mistake, ...]


def look_around() -> Surroundings:
    """All of it, as it is now. Changes nothing, starts no CUDA and runs no compiler."""
    environ = dict(os.environ)
    cxx = environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    cc = environ.get("CC")
    found, mistakes = asked(environ, _sources.folder())
    return Surroundings(
        environ=environ,
        quota=_room.quota(),
        shared_memory=_room.shared_memory(),
        cxx=cxx,
        has_cxx=shutil.which(cxx) is not None,
        has_cc=any(shutil.which(name) for name in ([cc] if cc else ["gcc", "clang", "cl"])),
        has_headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
        installed=dict(_installed()),
        boards=boards(Path("/sys/bus/pci/devices")),
        cuda_started=hardware.cuda.has_started(),
        sources=found,
        mistakes=mistakes,
    )


def asked(environ: Mapping[str, str], folder: Path | None) -> tuple[Sources, tuple[Mistake, ...]]:
    """What the file and the environment ask for, and each thing of it that is refused, all of them and not the first.

    Args:
        environ: the environment.
        folder: where to look for a file from, upwards.
    """
    mistakes = []
    try:
        _sources.read({}, folder)
    except TurboError as error:
        mistakes.append(Mistake(None, str(error)))
        folder = None
    good: dict[str, str] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        try:
            _sources.read({name: environ[name]}, folder)
        except TurboError as error:
            mistakes.append(Mistake(name, str(error)))
        else:
            good[name] = environ[name]
    return _sources.read(good, folder), tuple(mistakes)


def boards(bus: Path) -> int:
    """NVIDIA's GPUs on the PCI bus, where Linux tells.

    Args:
        bus: the folder of its devices.
    """
    found = 0
    for device in bus.glob("*"):
        try:
            vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
        except OSError:
            continue
        found += vendor == "0x10de" and kind.startswith("0x03")  # displays, with and without a screen
    return found


def _installed() -> Iterator[tuple[str, str]]:
    for name in _DISTRIBUTIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
