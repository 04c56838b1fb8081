"""A device that is none: copies to it come late, and whoever does not wait for them has wrong numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchturbo.regions._lanes import Load, _own, _to


def spoiled(tensor: Tensor) -> Tensor:
    """A tensor with wrong numbers."""
    return ~tensor if tensor.dtype is torch.bool else torch.full_like(tensor, -77)


class Late:
    """A `Lane` whose copies are made when somebody waits for them, and no earlier.

    What comes and is not named to `wait` is spoiled, as memory that the allocator may give to somebody else.

    Args:
        pinned: whether what is sent is in pinned memory already, and is read when the copy is made.
    """

    device = torch.device("meta")  # what is copied is on the CPU, and what is on this one already is not copied

    def __init__(self, pinned: bool = False) -> None:
        self.copies = 0
        self.waits = 0
        self.refuses: list[Exception] = []
        self._pinned = pinned
        self._open = False
        self._under_way: deque[tuple[int, Tensor, Tensor]] = deque()

    @contextmanager
    def open(self) -> Iterator[None]:
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def copied(self, tensor: Tensor, load: Load) -> Tensor:
        assert self._open
        if self.refuses:
            raise self.refuses.pop()
        self.copies += 1
        source = tensor.detach()
        if self._pinned:
            load.read.append(tensor)
        else:
            source = source.clone()
        made = spoiled(source)
        self._under_way.append((self.copies, made, source))
        load.made.append(made)
        return made

    def moved(self, thing: Any, load: Load) -> Any:
        assert self._open
        return _to(_own(thing), self.device)

    def mark(self) -> int:
        return self.copies

    def wait(self, event: int, tensors: list[Tensor]) -> None:
        assert not self._open
        self.waits += 1
        named = {id(tensor) for tensor in tensors}
        for made in self._come(event):
            if id(made) not in named:
                made.copy_(spoiled(made))

    def settle(self, event: int) -> None:
        self._come(event)

    def _come(self, event: int) -> list[Tensor]:
        come = []
        while self._under_way and self._under_way[0][0] <= event:
            _, made, source = self._under_way.popleft()
            made.copy_(source)
            come.append(made)
        return come
