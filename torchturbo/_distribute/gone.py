"""Which processes of a run are gone, said where another one fails for it.

A process that was killed (no memory left, a signal, a machine that was taken back) says nothing. The others fail in the
middle of a reduction, with an error about a connection; so each knows beforehand which processes there are.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
_SIGNS = ("connection", "gloo", "nccl", "timed out", "timeout", "process group", "tcpstore", "socket")
_PATIENCE = 1.0
"""Seconds."""


class _Known:
    """What this process knows of the run.

    Attributes:
        processes: host, process and rank of each.
        failed: whether this one has ended with an error.
        before: what said errors before.
    """

    processes: tuple[tuple[str, int, int], ...] = ()
    failed = False
    before: _Hook = sys.excepthook


def begin() -> None:
    """Notes the processes of the group, and has errors that end this one say which of them are gone."""
    mine = (socket.gethostname(), os.getpid(), dist.get_rank())
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    _Known.processes = tuple(found)
    _Known.before = sys.excepthook
    sys.excepthook = _said


def has_failed() -> bool:
    """Whether this process has ended with an error that nobody caught."""
    return _Known.failed


def _said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _Known.failed = True
    if is_of_others(error) and (note := told(_Known.processes)) is not None:
        error.add_note(note)
    _Known.before(kind, error, trace)


def is_of_others(error: BaseException) -> bool:
    """Whether an error may be about another process that does not answer.

    Args:
        error: what torch.distributed has raised, or something else.
    """
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def told(processes: tuple[tuple[str, int, int], ...]) -> str | None:
    """What can be said of the processes of a run when one fails, or None where there are none.

    Args:
        processes: host, process and rank of each.
    """
    if not processes:
        return None
    host = socket.gethostname()
    here = [each for each in processes if each[0] == host]
    dead: list[str] = []
    until = time.monotonic() + _PATIENCE
    # One that is being killed closes its connections before it is gone.
    while not dead and time.monotonic() < until:
        time.sleep(_PATIENCE / 20)
        dead = [f"rank {rank} (process {process})" for _, process, rank in here if not _is_alive(process)]
    if dead:
        are = "is gone: it was" if len(dead) == 1 else "are gone: they were"
        found = f"{' and '.join(dead)} on {host} {are} killed or ended without the others"
    else:
        elsewhere = " (or one on another machine is gone)" if len(here) < len(processes) else ""
        found = f"another rank does not answer, and all of {host} are alive{elsewhere}: one hangs, or does another step"
    return (
        f"torchturbo: {found}. What it had to say stands in its own output; the kernel's log (dmesg) tells of memory "
        "that ran out. Start again with torchrun and torchturbo.load_checkpoint(...), with any number of ranks"
    )


def _is_alive(process: int) -> bool:
    stat = Path("/proc", str(process), "stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            # What has been killed stays as a zombie until torchrun looks.
            return stat.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
