"""One batch ahead: while the code has one batch, the next has been fetched and is on its way to the device.

There is no thread. Each batch is sent before the one before it is handed out, and copies beside what that one computes.
"""

from __future__ import annotations

import dis
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple, NoReturn

import torch
from torch.utils.data import dataloader

from torchturbo._dynamo import untraced
from torchturbo.regions._batches import sent
from torchturbo.regions._epochs import later
from torchturbo.regions._lanes import Lane, Load

_untraced = partial(untraced, and_below=True)


class _Here(threading.local):
    fetching = 0


_here = _Here()


def is_fetching() -> bool:
    """Whether this thread fetches a batch to be sent: what is iterated in there is part of it, and stays."""
    return _here.fetching > 0


@contextmanager
def fetching() -> Iterator[None]:
    """A block that fetches a batch, or gets ready to."""
    _here.fetching += 1
    try:
        yield
    finally:
        _here.fetching -= 1


class Sent(NamedTuple):
    """A batch on its way.

    Attributes:
        batch: as the code will have it.
        load: what is made and read meanwhile.
        event: happens when it has come.
    """

    batch: Any
    load: Load
    event: Any


class Drawn(NamedTuple):
    """What a source has given.

    Attributes:
        batch: the batch, if it could not be sent.
        sent: the batch, if it was.
        raised: what was raised instead of a batch; at the end, that.
        notes: what is to be noted when it is handed out.
    """

    batch: Any
    sent: Sent | None
    raised: Exception | None
    notes: list[Callable[[], None]]

    def again(self, copied: Callable[[Any], Any]) -> Drawn:
        """The same, to be handed out once more.

        Args:
            copied: copies a batch, which has come.
        """
        if self.sent is None:
            return self._replace(batch=copied(self.batch))
        return self._replace(sent=self.sent._replace(batch=copied(self.sent.batch)))


@_untraced
def _send(batch: Any, lane: Lane) -> Sent:
    load = Load()
    with lane.open():
        moving = sent(batch, lane, load)
        return Sent(moving, load, lane.mark() if load.made else None)


@untraced
def _drawn(source: Iterator[Any], lane: Lane) -> Drawn:
    batch = its = raised = None
    notes: list[Callable[[], None]] = []
    try:
        with fetching(), later(notes):
            batch = next(source)
    except Exception as error:
        raised = error
    try:
        if raised is None:
            its = _send(batch, lane)
            batch = None
    except Exception:
        # Out of memory, perhaps: it is sent again when it is due, and what that raises is raised.
        its = None
    try:
        return Drawn(batch, its, raised, notes)
    finally:
        # An error holds the frames that it went through, and this one would hold the error.
        del batch, its, raised, notes


@untraced
def _draws(source: Iterator[Any], lane: Lane) -> Iterator[Drawn]:
    # A generator, since its frame is cut off from those beneath when it rests: what an error holds of it is not who
    # keeps the error until it is due, so that all is freed at once where the code does not go on.
    while True:
        yield _drawn(source, lane)


class Ahead:
    """An iterator that is one batch ahead of the code, on a device.

    It has the order, the values and the errors of its source, each when it is due; and all else is the source's.

    Args:
        source: gives the batches.
        lane: the way to the device.
        own: whether nobody else knows the source, which then begins nothing anew when it is iterated.

    Attributes:
        waiting: what has been fetched and not handed out.
    """

    __slots__ = ("__weakref__", "_begins", "_draws", "_lane", "_source", "_until", "waiting")

    def __init__(self, source: Iterator[Any], lane: Lane, own: bool = True) -> None:
        self._source, self._lane = source, lane
        # What is fetched ahead would be of the loop before, or lost, where a loop may begin anew: nobody can tell.
        self._begins = not own and not _goes_on(type(source))
        self._draws = _draws(source, lane)
        self.waiting: Drawn | None = None
        self._until: Any = None

    def __iter__(self) -> Ahead:
        if not self._begins:
            return self
        with fetching():
            source = iter(self._source)
        return self if source is self._source else Ahead(source, self._lane)

    @untraced
    def __next__(self) -> Any:
        if self.waiting is None:
            self.waiting = self._draw()
        if self.waiting.raised is not None:
            # Nothing here may hold what is raised, which holds this frame.
            return self._raise()
        if self.waiting.sent is None:
            self.waiting = self._again(self.waiting)
        drawn = self.waiting
        assert drawn.sent is not None
        # If this is interrupted, the batch is still the next one.
        self.waiting = None if self._begins else self._draw()
        return self._given(drawn.sent, drawn.notes)

    @untraced
    def _raise(self) -> NoReturn:
        drawn, self.waiting = self.waiting, None
        assert drawn is not None
        assert drawn.raised is not None
        raised, notes = drawn.raised, drawn.notes
        del drawn
        for note in notes:
            note()
        try:
            raise raised
        finally:
            del raised

    @_untraced
    def _again(self, drawn: Drawn) -> Drawn:
        """Sends a batch that could not be sent when it was drawn; it is gone if that raises once more."""
        self.waiting = None
        for note in drawn.notes:
            note()
        return self._read(Drawn(None, _send(drawn.batch, self._lane), None, []))

    @_untraced
    def _given(self, its: Sent, notes: list[Callable[[], None]]) -> Any:
        """Hands out a batch."""
        for note in notes:
            note()
        if its.event is not None:
            self._lane.wait(its.event, its.load.made)
        return its.batch

    @untraced
    def _draw(self) -> Drawn:
        if self._until is not None:
            # Memory that somebody else has pinned may be filled with the next batch as soon as that is asked for.
            self._lane.settle(self._until)
            self._until = None
        try:
            with _out_of_inference():
                drawn = next(self._draws)
        except BaseException:
            self._draws = _draws(self._source, self._lane)  # as an interrupt has ended it
            raise
        return self._read(drawn)

    def _read(self, drawn: Drawn) -> Drawn:
        """Remembers until when memory of the source is read. A data loader's is pinned for each batch anew."""
        its = drawn.sent
        if its is not None and its.load.read and not isinstance(self._source, dataloader._BaseDataLoaderIter):
            self._until = its.event
        return drawn

    def arrive(self) -> None:
        """Has what has been fetched come, so that it can be looked at before it is handed out."""
        if self.waiting is not None and self.waiting.sent is not None and self.waiting.sent.event is not None:
            its = self.waiting.sent
            self._lane.wait(its.event, its.load.made)
            self.waiting = self.waiting._replace(sent=its._replace(event=None))

    @property
    def source(self) -> Iterator[Any]:
        """What gives the batches."""
        return self._source

    def close(self) -> None:
        """Ends it: what has been fetched is let go, and a generator that gives the batches is closed."""
        self.waiting = None
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def __len__(self) -> int:
        return len(self._source)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in Ahead.__slots__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._source, name)

    def __repr__(self) -> str:
        return f"<one batch ahead on {self._lane.device} of {self._source!r}>"


def _goes_on(kind: type) -> bool:
    """Whether the ``__iter__`` of a type of iterators does nothing, so that each loop goes on where the last one was.

    Those of Python and of extensions do nothing. Code of Python's is looked at: it may start an epoch.
    """
    function = inspect.unwrap(vars(kind).get("__iter__", kind.__iter__))  # type: ignore[attr-defined]
    if not isinstance(function, FunctionType):
        return True
    does = [each.opname for each in dis.get_instructions(function) if each.opname not in ("RESUME", "NOP", "CACHE")]
    return len(does) == 2 and does[0].startswith("LOAD_FAST") and does[1] == "RETURN_VALUE"


def _out_of_inference() -> Any:
    """A block in which what is made can be used anywhere: the code may have left inference mode when it is due."""
    if not torch.is_inference_mode_enabled():
        return nullcontext()
    return _normal()


@contextmanager
def _normal() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield
