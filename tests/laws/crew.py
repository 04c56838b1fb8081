"""Real threads that do one thing at a time when told, and are gone afterwards."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Hand:
    """One thread."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while (act := self._told.get()) is not None:
            try:
                self._done.put((act(), None))
            except BaseException as error:
                self._done.put((None, error))
            del act

    def do(self, act: Callable[[], T]) -> T:
        """What `act` returns, or raises, in this thread."""
        self.start(act)
        return self.finish()  # type: ignore[no-any-return]

    def start(self, act: Callable[[], Any]) -> None:
        """Has `act` begun in this thread, and does not wait."""
        self._told.put(act)

    def finish(self) -> Any:
        """Waits for what was started, and has its result."""
        result, error = self._done.get(timeout=60)
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Ends the thread, and waits until it is gone."""
        self._told.put(None)
        self._thread.join(timeout=60)


class Crew:
    """So many threads, while the block runs."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> list[Hand]:
        self.hands = [Hand() for _ in range(self._size)]
        return self.hands

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self.hands:
            hand.end()


def in_new_thread(act: Callable[[], T]) -> T:
    """What `act` returns, or raises, in a thread of its own."""
    with Crew(1) as (hand,):
        return hand.do(act)
