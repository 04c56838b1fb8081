"""What a worker of a data loader is sent in a block with a seed: indices, which start its streams when they arrive.

torch sends indices to its workers by a queue, and a worker fetches them as soon as it has them. So the seed travels
with them, and what unpickles them seeds. The worker gets plain indices, and there is nothing of ours in it.
"""

from __future__ import annotations

import os
from typing import Any

from torch.utils.data import get_worker_info
from torch.utils.data._utils import worker as torchs

from torchturbo.regions._streams import CPU, NUMPY, PYTHON, seeds
from torchturbo.settings._base import Cell, Write


class Arriving:
    """Something that is sent to a worker, and that is itself again when it has come.

    Args:
        value: what is sent.
        seed: what the worker's streams start from when it has come.
        own_init: whether the worker has run an init function of the user's: what that has seeded is left to it.
        each: whether each worker starts from a seed of its own.
    """

    __slots__ = ("_how", "value")

    def __init__(self, value: Any, seed: int, *, own_init: bool, each: bool = False) -> None:
        self.value = value
        self._how = seed, own_init, each

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.value, *self._how)


_left: tuple[int, frozenset[Cell]] | None = None
"""This process, if it is a worker with an init function of the user's, and the streams that this one has seeded."""


def _arrived(value: Any, seed: int, own_init: bool, each: bool) -> Any:
    global _left
    worker = get_worker_info()
    if worker is None:
        return value
    if own_init and (_left is None or _left[0] != os.getpid()):
        _left = os.getpid(), frozenset(cell for cell, edit in _of_torch(worker) if cell.read() != edit(None))
    for cell, edit in seeds((seed + worker.id) % 2**64 if each else seed):
        if not own_init or _left is None or cell not in _left[1]:
            cell.write(edit(None), None)
    return value


def _of_torch(worker: Any) -> list[Write]:
    """The streams of a worker as torch starts them."""
    numpys = 0
    words: Any = torchs._generate_state
    for word in words(worker.seed - worker.id, worker.id):
        numpys = numpys << 32 | word
    plain = [(cell, edit) for cell, edit in seeds(worker.seed) if cell in (PYTHON, CPU)]
    return [*plain, *((cell, edit) for cell, edit in seeds(numpys) if cell is NUMPY)]
