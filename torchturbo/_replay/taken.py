"""What has been taken of an iterator, to be given again: once more in each run, and a last time after them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torchturbo._replay.streams import Stream, told


class _Drawn(NamedTuple):
    item: Any
    raised: Exception | None
    moves: tuple[tuple[Stream, str, Any], ...]


def nothing(*_: object) -> None:
    """Does nothing."""


class Taken:
    """An iterator that gives again what has been taken of another one, and then what that one has.

    What is given again moves random streams as it did when it was drawn, if they stand where they stood then.

    Args:
        source: gives what has not been taken yet.
        beneath: what stands in its place when everything has been given for the last time; None for nothing.
        give: what is given of what is to be given again.
        again: told of each that is given again, and whether it is the end.

    Attributes:
        streams: random streams that the source may move; none but in a run.
        runs: whether what is given is to be given once more.
        used_up: called when everything has been given for the last time.
    """

    def __init__(
        self,
        source: Callable[[], Any],
        beneath: Any,
        give: Callable[[Any], Any],
        again: Callable[[bool], object] = nothing,
    ) -> None:
        self.beneath = beneath
        self.streams: Callable[[], Iterable[Stream]] = tuple
        self.runs = True
        self.used_up: Callable[[], object] = nothing
        self._source = source
        self._give = give
        self._again = again
        self._drawn: list[_Drawn] = []
        self._next = 0

    def __iter__(self) -> Taken:
        return self

    def __len__(self) -> int:
        return len(self._drawn) - self._next

    def starts(self) -> None:
        """Begins with what has not been given yet."""
        del self._drawn[: self._next]
        self._next = 0

    def rewind(self, *, runs: bool) -> None:
        """Goes back to the first that was taken.

        Args:
            runs: whether what is given is to be given once more.
        """
        self._next, self.runs = 0, runs

    def __next__(self) -> Any:
        if self._next == len(self._drawn):
            self._drawn.append(self._draw())
        else:
            drawn = self._drawn[self._next]
            self._again(drawn.raised is not None)
            for stream, before, after in drawn.moves:
                # A run that has drawn otherwise by then goes on as it does.
                if told(stream.read()) == before:
                    stream.write(after)
        item, raised, _ = self._drawn[self._next]
        self._next += 1
        if not self.runs and self._next == len(self._drawn):
            self.used_up()
        if raised is not None:
            raise raised.with_traceback(None)
        return self._give(item) if self.runs else item

    def _draw(self) -> _Drawn:
        streams = tuple(self.streams())
        before = [told(stream.read()) for stream in streams]
        item, raised = None, None
        try:
            item = self._source()
        except Exception as error:
            raised = error
        now = [(stream, stood, stream.read()) for stream, stood in zip(streams, before, strict=True)]
        return _Drawn(
            item, raised, tuple((stream, stood, state) for stream, stood, state in now if told(state) != stood)
        )
