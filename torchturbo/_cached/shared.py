"""Memory that a process has in common with those that it forks or spawns, as a file that has no name.

It is gone with the last of them, however they end; so is a lock that one of them held.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

from torchturbo._cached.blob import Memory
from torchturbo.errors import UnsupportedHere

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # pragma: no cover
    _HAS_LOCKS = False

_FIELD = 8


class Locked:
    """An open file that one process at a time writes to, with numbers at its beginning.

    Args:
        number: the file's descriptor, which is closed when nobody needs this any more.

    Attributes:
        number: the same.
        threads: a lock for the threads of this process alone.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.threads = threading.RLock()
        self._close = weakref.finalize(self, os.close, number)
        self._close.atexit = False
        _all.add(self)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """A block in which no other process or thread is at this place. A process that dies in it lets go."""
        with self.threads:
            try:
                fcntl.lockf(self.number, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: what is counted may be off, and nothing else
                yield
                return
            try:
                yield
            finally:
                fcntl.lockf(self.number, fcntl.LOCK_UN)

    def read(self, at: int, memory: Memory) -> None:
        """Fills memory with what stands at a place.

        Args:
            at: the place.
            memory: what is filled.

        Raises:
            EOFError: there is less than that.
        """
        while len(memory):
            done = os.preadv(self.number, [memory], at)
            if not done:
                raise EOFError(f"{len(memory)} bytes at {at} are not there")
            memory, at = memory[done:], at + done

    def write(self, at: int, pieces: Sequence[Memory]) -> None:
        """Writes pieces one after the other.

        Args:
            at: where the first goes.
            pieces: them.

        Raises:
            OSError: there is no room.
        """
        for piece in pieces:
            while len(piece):
                done = os.pwrite(self.number, piece, at)
                piece, at = piece[done:], at + done

    def fields(self, count: int) -> list[int]:
        """The numbers at the beginning, zeros where none were written.

        Args:
            count: how many.
        """
        raw = os.pread(self.number, count * _FIELD, 0).ljust(count * _FIELD, b"\0")
        return [int.from_bytes(raw[at : at + _FIELD], "little") for at in range(0, count * _FIELD, _FIELD)]

    def put(self, field: int, value: int) -> None:
        """Writes one of these numbers.

        Args:
            field: which, from 0.
            value: at least 0.
        """
        self.write(field * _FIELD, [Memory(value.to_bytes(_FIELD, "little"))])

    def add(self, field: int, value: int) -> None:
        """Adds to one of these numbers.

        Args:
            field: which, from 0.
            value: what is added.
        """
        with self.lock():
            self.put(field, max(0, self.fields(field + 1)[field] + value))


class Shared(Locked):
    """One in memory, where the system has such files, or else in the folder for temporary files.

    It goes to processes that are spawned. Pickled for anything else, it is an empty one.
    """

    def __init__(self, number: int | None = None) -> None:
        super().__init__(_unnamed() if number is None else number)

    def __reduce__(self) -> tuple[Any, ...]:
        if context.get_spawning_popen() is None:
            return Shared, ()
        return _handed_on, (reduction.DupFd(self.number),)


def _handed_on(number: Any) -> Shared:
    return Shared(number.detach())


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("torchturbo.cached")
    with tempfile.TemporaryFile() as file:  # pragma: no cover
        return os.dup(file.fileno())


def must_be_possible() -> None:
    """Says so where files cannot be shared as it is done here.

    Raises:
        UnsupportedHere: on Windows.
    """
    if not _HAS_LOCKS or not hasattr(os, "preadv"):
        raise UnsupportedHere(
            "cached() needs what POSIX has for files that processes share, which is not here: build what the dataset "
            "gives once, and save it with torch.save"
        )


_all: weakref.WeakSet[Locked] = weakref.WeakSet()


def _unlocked() -> None:
    """In a forked child no thread is within a lock."""
    for each in _all:
        each.threads = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)
