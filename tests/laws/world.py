"""Made-up state for the laws of layers: cells in memory, simulated threads, and accesses that go wrong when told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Edit, Raw, always, keep


class Point(NamedTuple):
    """Raw state like that of float32 precision: parts with names."""

    x: int
    y: int
    z: int


START: dict[str, Raw] = {
    "number": 0,
    "flag": False,
    "pair": (0, 0),
    "point": Point(0, 0, 0),
    "own": 0,
    "own_pair": (0, 0),
}
THREADS = (0, 1, 2)


class World:
    """State, and who is running: cells whose name starts with ``own`` have one value in each thread.

    Attributes:
        thread: the simulated thread that runs now.
        values: the state of each cell; cells of threads by name and thread.
        accesses: how many times a cell has been read or written.
        visited: every state that a write led to.
        at_access: called with the access's number and ``"read"``, ``"write"`` or ``"written"``; may do anything.
    """

    def __init__(self) -> None:
        self.thread = 0
        self.values: dict[object, Raw] = {}
        for name, value in START.items():
            for key in [(name, thread) for thread in THREADS] if name.startswith("own") else [name]:
                self.values[key] = value
        self.accesses = 0
        self.visited: list[dict[object, Raw]] = []
        self.at_access: Callable[[int, str], None] | None = None
        self.cells = {name: self._cell(name) for name in START}

    def key(self, name: str) -> object:
        """Where the cell's value is kept for the thread that runs now."""
        return (name, self.thread) if name.startswith("own") else name

    def _cell(self, name: str) -> Cell:
        def read() -> Raw:
            self._access("read")
            return self.values[self.key(name)]

        def write(raw: Raw, over: Raw) -> None:
            self._access("write")
            self.values[self.key(name)] = raw
            self.visited.append(dict(self.values))
            self._access("written", counts=False)

        return Cell(name, "thread" if name.startswith("own") else "process", read, write)

    def _access(self, kind: str, *, counts: bool = True) -> None:
        self.accesses += counts
        if self.at_access is not None:
            self.at_access(self.accesses, kind)

    def foreign(self, name: str, parts: dict[int, int]) -> None:
        """Somebody else writes: a whole number, or some parts of a tuple."""
        self.values[self.key(name)] = replaced(parts)(self.values[self.key(name)])

    def after(self, accesses: int, act: Callable[[str], None], *, kind: str | None = None) -> None:
        """Has `act` done at one access from now, once: the first after `accesses` others (of that kind, if given)."""
        due = self.accesses + accesses

        def at_access(number: int, now: str) -> None:
            if number > due and kind in (None, now):
                self.at_access = None
                act(now)

        self.at_access = at_access


def replaced(parts: dict[int, int]) -> Edit:
    """The edit that replaces some parts of a tuple, or (part 0) a value that is no tuple."""

    def edit(beneath: Raw) -> Raw:
        if not isinstance(beneath, tuple):
            return parts.get(0, beneath)
        values = [parts.get(place, value) for place, value in enumerate(beneath)]
        return type(beneath)(*values) if hasattr(beneath, "_fields") else tuple(values)

    return edit


def _next(beneath: Any) -> Any:
    return beneath + 1


def _swapped(beneath: Any) -> Any:
    values = (beneath[1], beneath[0], *beneath[2:])
    return type(beneath)(*values) if hasattr(beneath, "_fields") else values


def _copied(beneath: Point) -> Point:
    """Like the edit that makes a child keep its meaning: where one part says nothing, it takes another's value."""
    return beneath._replace(x=beneath.z) if beneath.x == 0 else beneath


EDITS: dict[str, dict[str, Edit]] = {
    "number": {"1": always(1), "2": always(2), "3": always(3), "keep": keep, "+1": _next},
    "flag": {"on": always(True), "off": always(False), "keep": keep},
    "pair": {"(1, 2)": always((1, 2)), "(_, 3)": replaced({1: 3}), "(4, _)": replaced({0: 4}), "swap": _swapped},
    "point": {
        "(1, 1, 1)": always(Point(1, 1, 1)),
        "z=2": replaced({2: 2}),
        "x=3": replaced({0: 3}),
        "x=z": _copied,
        "swap": _swapped,
        "keep": keep,
    },
    "own": {"1": always(1), "2": always(2), "keep": keep, "+1": _next},
    "own_pair": {"(1, 2)": always((1, 2)), "(_, 3)": replaced({1: 3}), "swap": _swapped},
}
"""What a layer can ask of each cell, by name so that a failing example can be read."""

Asked = dict[str, str]
"""What one layer asks for: a cell's name to an edit's name."""
