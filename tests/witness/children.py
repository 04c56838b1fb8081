"""Runs a function in a forked child and brings its answer back, whatever happens to the child."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back: the value, or in words how the child ended without one."""

    value: Any = None
    crash: str | None = None


def in_child(function: Callable[[], Any], *, seconds: int = 30) -> Answer:
    """Call ``function`` in a fork of this process, which must have one thread only."""
    if threading.active_count() != 1:
        raise RuntimeError("a fork copies one thread only: nothing else may run in the parent of the children")
    sys.stdout.flush()
    sys.stderr.flush()
    errors = os.memfd_create("stderr")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _live(function, writing, errors, seconds)
    os.close(writing)
    with open(reading, "rb") as pipe:
        sent = pipe.read()
    _, status = os.waitpid(child, 0)
    said = os.pread(errors, 20_000, 0).decode(errors="replace")
    os.close(errors)
    if status == 0 and sent:
        return Answer(value=pickle.loads(sent))
    return Answer(crash=f"the child ended without an answer (status {status}): {said[-6000:]}")


def _live(function: Callable[[], Any], writing: int, errors: int, seconds: int) -> None:
    """The child's whole life. It never returns, so that nothing of the parent's runs twice."""
    status = 1
    try:
        os.dup2(errors, 2)
        os.dup2(errors, 1)
        # A child that hangs says where each of its threads stands before it goes. Not with a timer of faulthandler's:
        # where the parent (pytest) has one, setting another waits for a thread that the fork did not copy.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=errors, chain=True)
        signal.alarm(seconds)
        with open(writing, "wb", closefd=False) as pipe:
            pipe.write(pickle.dumps(function()))
        status = 0
    except BaseException:
        os.write(errors, traceback.format_exc().encode())
    finally:
        os._exit(status)
