"""What there is room for: cores, memory, and the memory in which processes share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where control groups are mounted, and the file that names those of this process."""
_MEMINFO = Path("/proc/meminfo")
_SHARED = "/dev/shm"


def cores(known: int) -> int:
    """How many cores this process may use: what it is bound to, or less where a container's quota is less.

    Args:
        known: how many it is bound to.
    """
    limit = quota()
    return known if limit is None else max(1, min(known, int(limit)))


def quota() -> float | None:
    """The cores that control groups let this process keep busy; None where they do not limit it."""
    return min((limit for group in _groups("cpu") for limit in _cpu_limits(group)), default=None)


def memory() -> int | None:
    """Bytes that can be had without swapping, in the container if there is one; None where nobody says."""
    told = [line.split()[1] for line in _text(_MEMINFO).splitlines() if line.startswith("MemAvailable:")]
    free = [1024 * int(kilobytes) for kilobytes in told if kilobytes.isdecimal()]
    for group in _groups("memory"):
        limit, used = _text(group / "memory.max"), _text(group / "memory.current")
        if limit.isdecimal() and used.isdecimal():
            free.append(max(0, int(limit) - int(used)))
    return min(free, default=None)


def installed() -> int | None:
    """Bytes of memory, whoever uses them, that the machine has, or the container; None where nobody says."""
    limits = (_text(group / "memory.max") for group in _groups("memory"))
    told = [int(limit) for limit in limits if limit.isdecimal()]
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        told.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(told, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The control groups that this process is in, of either version, from its own one up.

    Args:
        controller: what version 1 has trees of their own for.
    """
    for line in _text(_OWN).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = _GROUPS
        elif controller in controllers.split(","):
            root = _GROUPS / controller
        else:
            continue
        # A container sees its own group where the whole tree is mounted outside, so not every part need be there.
        group = root / path.lstrip("/")
        for at in (group, *group.parents):
            yield at
            if at == root:
                break


def _cpu_limits(group: Path) -> Iterator[float]:
    """The limit of one group, by either version of control groups."""
    limit, _, period = _text(group / "cpu.max").partition(" ")
    if not limit:
        limit, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if limit.isdecimal() and period.isdecimal() and int(period):  # neither "max" nor -1
        yield int(limit) / int(period)


def shared_memory() -> int | None:
    """Free bytes of the file system in which torch's processes hand tensors to each other; None if there is none."""
    try:
        found = os.statvfs(_SHARED)
    except (OSError, AttributeError):  # macOS and Windows have none
        return None
    return found.f_bavail * found.f_frsize


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
