"""Where an iterator that is one batch ahead stands."""

from __future__ import annotations

from torchturbo._replay.positions import Streams, copied
from torchturbo.regions._ahead import Ahead

__all__ = ["Ahead", "OfAhead"]


class OfAhead:
    """What an iterator has fetched, and not handed out. Its source is put back by itself.

    Args:
        iterator: ours.
    """

    def __init__(self, iterator: Ahead) -> None:
        iterator.arrive()
        self._iterator = iterator
        self._waiting = iterator.waiting

    def begin(self, streams: Streams) -> None:
        """Has it hand out the same, as a copy that a run may change."""
        self._iterator.waiting = None if self._waiting is None else self._waiting.again(copied)

    def put_back(self) -> None:
        """Has it hand out what it has fetched."""
        self._iterator.waiting = self._waiting
