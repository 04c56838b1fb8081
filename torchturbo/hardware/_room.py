"""What there is room for at this moment: cores, memory, and the memory in which processes share."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_SHARED = "/dev/shm"


def cores(known: int) -> int:
    """How many cores this process may use: what it is bound to, or less where a container's quota is less.

    Args:
        known: how many it is bound to.
    """
    quota, _, period = _text(_CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period):
        return max(1, min(known, int(quota) // int(period)))
    return known


def memory() -> int | None:
    """Bytes that can be had without swapping, in the container if there is one; None where nobody says."""
    told = [line.split()[1] for line in _text(_MEMINFO).splitlines() if line.startswith("MemAvailable:")]
    free = [1024 * int(kilobytes) for kilobytes in told if kilobytes.isdecimal()]
    limit, used = _text(_CGROUP / "memory.max"), _text(_CGROUP / "memory.current")
    if limit.isdecimal() and used.isdecimal():
        free.append(max(0, int(limit) - int(used)))
    return min(free, default=None)


def shared_memory() -> int | None:
    """Free bytes of the file system in which torch's processes hand tensors to each other; None if there is none."""
    try:
        found = os.statvfs(_SHARED)
    except (OSError, AttributeError):  # macOS and Windows have none
        return None
    return found.f_bavail * found.f_frsize


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
