"""Which processes of a run are gone, said where another one fails for it.

A process that was killed (no memory left, a signal, a machine that was taken back) says nothing. The others fail in the
middle of a reduction, with an error about a connection; so each knows beforehand which processes there are. What ends
with an error of its own says so in the store in which torchrun's processes find each other.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from torchturbo.errors import in_a_line

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
_SIGNS = ("connection", "gloo", "nccl", "timed out", "timeout", "process group", "tcpstore", "socket")
_PATIENCE = 1.0
"""Seconds."""
_REACHED = 5.0
"""Seconds until what others have said is given up: who keeps it may be the one that hangs."""
_WAITS = "waits"
"""What those say that wait for another one in vain."""


class _Known:
    """What this process knows of the run.

    Attributes:
        processes: host, process and rank of each.
        failed: whether this one has ended with an error.
        store: where they say what ends them; None before there is a group.
        before: what said errors before.
    """

    processes: tuple[tuple[str, int, int], ...] = ()
    failed = False
    store: Any = None
    before: _Hook = sys.excepthook


def begin() -> None:
    """Notes the processes of the group, and has errors that end this one say which of them are gone."""
    mine = (socket.gethostname(), os.getpid(), dist.get_rank())
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    _Known.processes = tuple(found)
    c10d: Any = dist.distributed_c10d
    # A connection of its own, that whoever waits in vain is in nobody's way.
    _Known.store = c10d.PrefixStore("torchturbo/gone", c10d._get_default_store()).clone()
    _Known.before = sys.excepthook
    sys.excepthook = _said


def has_failed() -> bool:
    """Whether this process has ended with an error that nobody caught."""
    return _Known.failed


def _said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _Known.failed = True
    if is_of_others(error):
        say(_WAITS)
        if (note := told(_Known.processes, heard)) is not None:
            error.add_note(note)
    else:
        say(f"has failed: {in_a_line(error)}")
    _Known.before(kind, error, trace)


def say(what: str) -> None:
    """Has the others know what has become of this process, as far as they can be reached.

    Args:
        what: it, as the end of a sentence that begins with its rank.
    """
    for host, process, rank in _Known.processes:
        if (host, process) == (socket.gethostname(), os.getpid()):
            with suppress(Exception):
                _Known.store.set(str(rank), what)


def heard() -> dict[int, str]:
    """What processes have said, by rank."""
    found: dict[int, str] = {}

    def ask() -> None:
        with suppress(Exception):
            for _, _, rank in _Known.processes:
                if _Known.store.check([str(rank)]):
                    found[rank] = _Known.store.get(str(rank)).decode()

    # It has no time of its own after which torch gives up.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_REACHED)
    return dict(found)


def is_of_others(error: BaseException) -> bool:
    """Whether an error may be about another process that does not answer.

    Args:
        error: what torch.distributed has raised, or something else.
    """
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS):
        return True
    return error.__cause__ is not None and is_of_others(error.__cause__)


def told(
    processes: tuple[tuple[str, int, int], ...], heard: Callable[[], Mapping[int, str]] = lambda: {}
) -> str | None:
    """What can be said of the processes of a run when one fails, or None where there are none.

    Args:
        processes: host, process and rank of each.
        heard: tells what some have said, by rank.
    """
    if not processes:
        return None
    host = socket.gethostname()
    here = [each for each in processes if each[0] == host]
    ended: list[str] = []
    dead: list[tuple[str, int, int]] = []
    said: Mapping[int, str] = {}
    until = time.monotonic() + _PATIENCE
    # One that is being killed closes its connections before it is gone.
    while not ended and not dead and time.monotonic() < until:
        time.sleep(_PATIENCE / 20)
        dead = [each for each in here if not _is_alive(each[1])]
        said = heard()
        ended = [f"{_name(each)} {said[each[2]]}" for each in processes if said.get(each[2], _WAITS) != _WAITS]
    silent = [each for each in processes if each[2] not in said and each[1:] != (os.getpid(), each[2])]
    if ended:
        found = "; ".join(ended)
    elif dead:
        are = "is gone: it was" if len(dead) == 1 else "are gone: they were"
        names = " and ".join(f"rank {rank} (process {process})" for _, process, rank in dead)
        found = f"{names} on {host} {are} killed or ended without the others"
    elif said and silent:
        gone = " (or is gone with its machine)" if len(here) < len(processes) else ""
        found = f"{' and '.join(map(_name, silent))} does not answer{gone}: it hangs, or does another step"
    else:
        elsewhere = " (or one on another machine is gone)" if len(here) < len(processes) else ""
        found = f"another rank does not answer, and all of {host} are alive{elsewhere}: one hangs, or does another step"
    return (
        f"torchturbo: {found}. What it had to say stands in its own output; the kernel's log (dmesg) tells of memory "
        "that ran out. Start again with torchrun and torchturbo.load_checkpoint(...), with any number of ranks"
    )


def _name(process: tuple[str, int, int]) -> str:
    return f"rank {process[2]} (process {process[1]}) on {process[0]}"


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
