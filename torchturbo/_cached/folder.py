"""What is kept in a folder, for this run and others: a file for each item, whole or not there at all.

A file is written under another name, and renamed. Where that is interrupted, at whatever byte, no item is there, and
the next who needs it builds it. What a disk has lost of a file shows in its checksum, so nothing waits for the disk.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from torchturbo._cached.blob import Memory, Read, whole
from torchturbo._cached.shared import Locked
from torchturbo.errors import CacheError, CacheWarning, in_a_line
from torchturbo.settings._callers import users_frame, warn_at

_LEDGER, _ABOUT, _PART = "torchturbo-cached", "about.json", ".part"
_MODE = 0o755
_numbers = count()


class InFolder:
    """A place for blobs by name.

    Args:
        where: the folder, which others may use too.
        key: what the blobs come of; each key has a folder in it.
        limit: bytes that the whole folder may take.
        about: what is written beside them, to be read by people.

    Attributes:
        limit: bytes that the whole folder may take.
        path: where the blobs of the key are.

    Raises:
        CacheError: the folder cannot be made, or read.
    """

    def __init__(self, where: Path, key: str, limit: int, about: dict[str, Any]) -> None:
        self.limit = limit
        self._whole: set[str] = set()
        self._refused: OSError | None = None
        self._top = Path(where).absolute()
        self.path = self._top / key
        try:
            self.path.mkdir(_MODE, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise CacheError(
                f"where={str(where)!r} can neither be written to nor holds what is asked for ({in_a_line(error)}): "
                "give a folder that can be made or written to, or 'memory'"
            ) from error
        with suppress(OSError):  # a disk that is full: what is there is there
            if self._refused is None:
                self._write(self.path / _ABOUT, [Memory(json.dumps(about, indent=1).encode())])
                self._tidy()

    def _open(self) -> None:
        ledger, self._refused = self._top / _LEDGER, None
        try:
            number = os.open(ledger, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            # A disk that is mounted for reading, or somebody else's folder: what is in it can be had.
            self._refused = error
            number = os.open(ledger, os.O_RDONLY | os.O_CLOEXEC)
        self._ledger = Locked(number)

    def __getstate__(self) -> dict[str, Any]:
        return {name: its for name, its in vars(self).items() if name not in ("_ledger", "_refused")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.path)

    def _tidy(self) -> None:
        """Counts what is there, and removes what a process that has died was about to write."""
        with self._ledger.lock():
            total = 0
            keys = [path for path in self._top.iterdir() if path == self.path or (path / _ABOUT).exists()]
            for path, size in (each for key in keys for each in _files(key)):
                if path.endswith(_PART) and _is_left(path):
                    with suppress(OSError):
                        os.unlink(path)
                else:
                    total += size
            self._ledger.put(0, total)

    def _file(self, name: str) -> Path:
        return self.path / name[:2] / f"{name}.item"

    def has(self, name: str) -> bool:
        """Whether there is a blob of that name.

        Args:
            name: 32 characters.
        """
        return self._file(name).exists()

    @contextmanager
    def reading(self, name: str) -> Iterator[tuple[Read, bool] | None]:
        """A block that reads a blob: how it is read, and whether nobody else can have written it; None without one.

        Args:
            name: 32 characters.
        """
        try:
            file = io.FileIO(self._file(name))
        except FileNotFoundError:
            yield None
            return
        with file:
            if name not in self._whole:
                if not whole(Memory(file.readall() or b"")):
                    self.drop(name)
                    warn_at(
                        users_frame(),
                        f"{self._file(name)} is not as it was written (a disk that was full or failed, or a machine "
                        "that went down): it is removed, and built again",
                        CacheWarning,
                    )
                    yield None
                    return
                self._whole.add(name)
            found = os.fstat(file.fileno())

            def read(at: int, memory: Memory) -> None:
                file.seek(at)
                while len(memory):
                    done = file.readinto(memory)
                    if not done:
                        raise EOFError(f"{self._file(name)} ends early")
                    memory = memory[done:]

            yield read, found.st_uid in (os.geteuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    def put(self, name: str, pieces: list[Memory]) -> bool:
        """Keeps a blob, and says whether there is room for it.

        Args:
            name: 32 characters.
            pieces: one after the other.

        Raises:
            OSError: it cannot be written.
        """
        if self._refused is not None:
            raise self._refused
        size = sum(map(len, pieces))
        with self._ledger.lock():
            used = self._ledger.fields(1)[0]
            if used + size > self.limit:
                return False
            self._ledger.put(0, used + size)
        path = self._file(name)
        there = path.exists()
        try:
            path.parent.mkdir(_MODE, parents=True, exist_ok=True)
            self._write(path, pieces)
        except BaseException:
            self._ledger.add(0, -size)
            raise
        if there:
            self._ledger.add(0, -size)
        self._whole.add(name)
        return True

    def _write(self, path: Path, pieces: list[Memory]) -> None:
        # The host's name and the process's number tell whether its writer lives.
        part = path.with_name(f"{path.name}.{_host()}.{os.getpid()}.{next(_numbers)}{_PART}")
        try:
            with io.FileIO(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                for piece in pieces:
                    while len(piece):
                        piece = piece[_written(file, piece) :]
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise

    def drop(self, name: str) -> None:
        """Removes a blob that cannot be read.

        Args:
            name: 32 characters.
        """
        self._whole.discard(name)
        with suppress(OSError):
            size = self._file(name).stat().st_size
            self._file(name).unlink()
            self._ledger.add(0, -size)

    def size(self) -> tuple[int, int]:
        """How many blobs of the key there are, and how many bytes they take."""
        found = [(Path(path).name[0] != "-", size) for path, size in _files(self.path) if path.endswith(".item")]
        return sum(is_item for is_item, _ in found), sum(size for _, size in found)

    def clear(self) -> None:
        """Removes all blobs of the key."""
        for path, _ in list(_files(self.path)):
            if path.endswith(".item"):
                self.drop(Path(path).stem)

    def others(self) -> list[tuple[Path, int, float]]:
        """The folders of other keys, with their bytes, and the days since one of them was last opened."""
        now, found = time.time(), []
        for path in sorted(self._top.iterdir()):
            if path != self.path and (path / _ABOUT).exists():
                opened = (path / _ABOUT).stat().st_mtime
                found.append((path, sum(size for _, size in _files(path)), max(0.0, now - opened) / 86_400))
        return found

    def clear_others(self, days: float) -> int:
        """Removes the folders of keys that were not opened for a while, and says how many bytes that were.

        Args:
            days: for how long.
        """
        gone = 0
        for path, size, since in self.others():
            if since >= days:
                shutil.rmtree(path)
                gone += size
        self._ledger.add(0, -gone)
        return gone


def _written(file: io.FileIO, piece: Memory) -> int:
    return file.write(piece)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            with suppress(OSError):  # removed meanwhile
                if name != _LEDGER and name != _ABOUT:
                    yield path, os.stat(path).st_size


def _is_left(path: str) -> bool:
    """Whether a file that is being written has no writer any more."""
    *_, host, number, _ = path.removesuffix(_PART).split(".")
    try:
        if host != _host():
            return time.time() - os.stat(path).st_mtime > 86_400  # nobody can ask there
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:
        return False
    return False


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname()) or "here"
