"""How many threads one operation on the CPU uses."""

from __future__ import annotations

import _thread
import operator
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from torchturbo.settings._base import Cell, number, simple
from torchturbo.settings._edits import Raw

_writing = threading.Lock()


def _elsewhere(call: Callable[[], Any]) -> Any:
    """What `call`, a builtin, returns in a fresh thread, which has torch's default number of threads and not ours.

    The thread runs builtins only. Any line of Python in it could set off a garbage collection that closes a forgotten
    block, and wait there for the lock that whoever waits for this thread is holding.
    """
    answers: list[Any] = []
    done = threading.Lock()
    done.acquire()
    _thread.start_new_thread(answers.extend, (map(operator.call, (call, done.release)),))
    done.acquire()
    return answers[0]


def _write(raw: int, over: Raw) -> None:
    if torch.get_num_threads() == raw:
        return
    if sys.is_finalizing():
        # A thread that is started now never runs, and nobody starts one any more.
        torch.set_num_threads(raw)
        return
    # torch.set_num_threads also writes the number that threads start with; that is put back from another thread.
    with _writing:
        beneath = _elsewhere(torch.get_num_threads)
        try:
            torch.set_num_threads(raw)
        finally:
            _elsewhere(partial(torch.set_num_threads, beneath))


num_threads = simple(
    Cell("intra-op threads", "thread", torch.get_num_threads, _write),
    help="How many threads one operation called from this thread uses on the CPU: torch.set_num_threads.",
    values=number(at_least=1),
)
