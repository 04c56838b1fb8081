"""What is kept in memory, in common with workers: one blob after the other, and who comes later looks what is new."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchturbo._cached.blob import Memory, Read
from torchturbo._cached.shared import Shared

_USED, _COUNT, _CLEARED = range(3)
_BEGIN = 64
_RECORD = struct.Struct("<QQ32s")
"""The size of the blob, whether it is whole, and its name."""
_HEAD = 64


class InMemory:
    """A place for blobs by name.

    Args:
        limit: bytes that it may take.

    Attributes:
        limit: bytes that it may take.
    """

    where = "memory"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._file = Shared()
        self._forget(0)

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget(0)

    def _forget(self, cleared: int) -> None:
        self._cleared = cleared
        self._at: dict[str, int] = {}
        self._unfinished: list[int] = []
        self._seen = _BEGIN

    def _look(self, everything: bool) -> None:
        with self._file.threads:
            used, _, cleared = self._file.fields(3)
            if cleared != self._cleared:
                self._forget(cleared)
            if not everything:
                return
            waiting, self._unfinished = self._unfinished, []
            for at in waiting:
                self._record(at)
            while self._seen < used:
                self._seen += _HEAD + self._record(self._seen)

    def _record(self, at: int) -> int:
        head = bytearray(_RECORD.size)
        self._file.read(at, Memory(head))
        size, whole, name = _RECORD.unpack(head)
        if whole:
            self._at[name.decode()] = at + _HEAD
        else:
            self._unfinished.append(at)  # somebody writes it, or died of it
        return int(size)

    def has(self, name: str) -> bool:
        """Whether there is a blob of that name.

        Args:
            name: 32 characters.
        """
        self._look(name not in self._at)
        return name in self._at

    @contextmanager
    def reading(self, name: str) -> Iterator[tuple[Read, bool] | None]:
        """A block that reads a blob: how it is read, and whether it is one's own; None if there is none.

        Args:
            name: 32 characters.
        """
        if not self.has(name):
            yield None
            return
        begin = self._at[name]
        yield lambda at, memory: self._file.read(begin + at, memory), True

    def put(self, name: str, pieces: list[Memory]) -> bool:
        """Keeps a blob, and says whether there is room for it.

        Args:
            name: 32 characters.
            pieces: one after the other.

        Raises:
            OSError: the system has no memory for it.
        """
        size = sum(map(len, pieces))
        size += -size % _HEAD
        with self._file.lock():
            if self.has(name):
                return True
            at = max(_BEGIN, self._file.fields(1)[_USED])
            if at + _HEAD + size > self.limit + _BEGIN:
                return False
            self._file.write(at, [Memory(_RECORD.pack(size, 0, name.encode()))])
            self._file.put(_USED, at + _HEAD + size)
        # Others may write at the same time. Whoever is killed here has taken some room, and that is all.
        self._file.write(at + _HEAD, pieces)
        with self._file.lock():
            counts = name[0] != "-" and not self.has(name)  # somebody may have been faster
            self._file.write(at, [Memory(_RECORD.pack(size, 1, name.encode()))])
            self._file.add(_COUNT, counts)
        return True

    def drop(self, name: str) -> None:
        """Forgets a blob that cannot be read.

        Args:
            name: 32 characters.
        """
        self._at.pop(name, None)

    def size(self) -> tuple[int, int]:
        """How many blobs there are, and how many bytes they take."""
        used, count, _ = self._file.fields(3)
        return count, max(0, used - _BEGIN)

    def clear(self) -> None:
        """Forgets all blobs, for all processes. None may be reading."""
        with self._file.lock():
            used, _, cleared = self._file.fields(3)
            os.ftruncate(self._file.number, _BEGIN)
            self._file.put(_COUNT, 0)
            self._file.put(_USED, min(used, _BEGIN))
            self._file.put(_CLEARED, cleared + 1)
        self._forget(cleared + 1)
