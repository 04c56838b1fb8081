"""A second rank for a test: a child of this process, with which it talks by gloo."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist

from torchturbo import _ranks
from torchturbo._distribute import gone, group


@contextmanager
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A block that two processes run, as torchrun would have started them; the second ends with the block.

    Python says which one it is. What fails in the second one fails here too.

    Args:
        monkeypatch: of the test.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(gone._Known, "processes", ())
    monkeypatch.setattr(gone._Known, "failed", False)
    monkeypatch.setattr(_ranks, "_settled", False)
    # Nobody is to leave a group at the end of the tests.
    monkeypatch.setattr(group.atexit, "register", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    child = os.fork()
    monkeypatch.setenv("RANK", "0" if child else "1")
    monkeypatch.setenv("LOCAL_RANK", "0" if child else "1")
    if not child:
        try:
            yield 1
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        finally:
            os._exit(0)
    try:
        yield 0
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(threads)
        _, status = os.waitpid(child, 0)
    assert status == 0, "the second rank failed"
