"""The text: every module of the running Python's standard library, in one memory-mapped file."""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
# Python source never holds a zero byte, so that the model can learn where one file ends.
END_OF_FILE = b"\0"
HELD_OUT = 0.1


def modules(library: Path) -> list[Path]:
    """The source files under `library`, in an order that depends on their names alone.

    The order is by a hash of the name, not by the name: the end of the text is held out for validation, and
    has to be of the same kind as the rest.
    """
    found = (path for path in library.rglob("*.py") if NOT_LIBRARY.isdisjoint(path.relative_to(library).parts))
    return sorted(found, key=lambda path: hashlib.sha256(_name(path, library)).digest())


def _name(path: Path, library: Path) -> bytes:
    return path.relative_to(library).as_posix().encode()


def gather(folder: Path, library: Path | None = None) -> Path:
    """Writes the modules of `library` into one file in `folder`, once, and returns its path.

    Args:
        folder: where the file is kept; made where it is missing.
        library: a folder of Python source; by default, the running Python's standard library.
    """
    library = Path(sysconfig.get_path("stdlib")) if library is None else library
    paths = modules(library)
    if not paths:
        raise FileNotFoundError(f"no Python source under {library}: this Python came without its library's source")
    listed = hashlib.sha256(platform.python_version().encode())
    for path in paths:
        listed.update(b"%s %d\n" % (_name(path, library), path.stat().st_size))
    gathered = folder / f"python-{platform.python_version()}-{listed.hexdigest()[:8]}.txt"
    if not gathered.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(gathered, paths)
    return gathered


def _write_whole(target: Path, paths: list[Path]) -> None:
    # Another process may read or write the same file at this moment: it sees all of it or none.
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            for path in paths:
                file.write(path.read_bytes() + END_OF_FILE)
        os.replace(part, target)
    except BaseException:
        os.unlink(part)
        raise


class Batch(NamedTuple):
    """Pieces of the text, and the same pieces one byte further on."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch, on `device`."""
        return Batch(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Text:
    """A text in two parts: one to train on, and one that training never sees.

    Attributes:
        name: the name of the file that it is in.
        training: the first part.
        held_out: the rest.
    """

    name: str
    training: NDArray[np.uint8]
    held_out: NDArray[np.uint8]

    @classmethod
    def open(cls, path: Path) -> Text:
        """Maps a gathered file into memory: only the pages that are sampled are read."""
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        end = int(len(whole) * (1 - HELD_OUT))
        return cls(path.name, whole[:end], whole[end:])

    def digest(self) -> str:
        """A hash of the whole text."""
        whole = hashlib.sha256(self.training.data)
        whole.update(self.held_out.data)
        return whole.hexdigest()


def sample(text: NDArray[np.uint8], count: int, length: int, generator: torch.Generator) -> Batch:
    """A batch of `count` pieces of `length` bytes, from places that `generator` picks."""
    if len(text) <= length:
        raise ValueError(f"a text of {len(text)} bytes has no piece of {length} bytes and the byte after it")
    starts = torch.randint(len(text) - length, (count, 1), generator=generator).numpy()
    pieces = torch.from_numpy(text[starts + np.arange(length + 1)].astype(np.int64))
    return Batch(pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous())
