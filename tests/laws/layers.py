"""What keeps layers over state: the interface that the laws ask for, torchturbo's stack behind it, and a plainer one.

`Plain` holds every law too. That two implementations pass shows that the laws do not just repeat the first, and the
mutants break the plain one, so that they do not depend on how the real one is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torchturbo._stack import Layer, Stack
from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell, Scope, Write
from torchturbo.settings._edits import Raw

SCOPES: tuple[Scope, ...] = ("process", "thread")


class Layers(Protocol):
    """Layers over cells. `thread` is the calling thread, which opened what it closes unless it closes a part only."""

    def open(self, writes: Sequence[Write], thread: int = 0) -> Any:
        """Puts a layer in force, in wholly or not at all, and returns it."""

    def close(self, layer: Any, thread: int = 0) -> None:
        """Takes a layer out of force, wherever it stands."""

    def close_part(self, layer: Any, thread: int, scope: Scope) -> None:
        """Takes the part of a layer out that belongs to the process, or the part of the thread that opened it."""


Maker = Callable[[], Layers]


class Ours:
    """torchturbo's own stack."""

    def __init__(self) -> None:
        self.stack = Stack()
        self._own: defaultdict[int, list[Layer]] = defaultdict(list)

    def open(self, writes: Sequence[Write], thread: int = 0) -> Layer:
        layer = Layer(tuple(writes))
        self.stack.push(layer, self._own[thread])
        return layer

    def close(self, layer: Layer, thread: int = 0) -> None:
        self.stack.pop(layer, self._own[thread])

    def close_part(self, layer: Layer, thread: int, scope: Scope) -> None:
        self.stack.pop(layer, self._own[thread], (scope,))


class PlainLayer:
    """One entry: for each cell in the order of entry its edit, what was found, and what was put."""

    def __init__(self, writes: Sequence[Write], thread: int) -> None:
        self.edits = dict(writes)
        self.thread = thread
        self.found: dict[Cell, Raw] = {}
        self.put: dict[Cell, Raw] = {}


class Plain:
    """The laws written down as code, each step a method that a mutant can break."""

    def __init__(self) -> None:
        self.layers: list[PlainLayer] = []
        self.settled: set[PlainLayer] = set()
        self.late: list[Callable[[], None]] = []

    # ------------------------------------------------------------------------------------------------- the interface

    def open(self, writes: Sequence[Write], thread: int = 0) -> PlainLayer:
        layer = PlainLayer(writes, thread)
        with self.busy():
            try:
                self.take(layer)
                self.layers.append(layer)
            except BaseException:
                self.roll_back(layer)
                raise
        try:
            self.catch_up()
        except BaseException:
            self.leave(layer, SCOPES)
            raise
        return layer

    def close(self, layer: PlainLayer, thread: int = 0) -> None:
        self.when_settled(layer, lambda: self.leave(layer, SCOPES))

    def close_part(self, layer: PlainLayer, thread: int, scope: Scope) -> None:
        self.when_settled(layer, lambda: self.leave(layer, (scope,)))

    # ----------------------------------------------------------------------------------------------- steps of an entry

    def take(self, layer: PlainLayer) -> None:
        for cell, edit in layer.edits.items():
            found = cell.read()
            layer.found[cell] = found
            layer.put[cell] = edit(found)
            if layer.put[cell] != found:
                cell.write(layer.put[cell], found)

    def roll_back(self, layer: PlainLayer) -> None:
        self.put_back([(cell, layer.found[cell], put) for cell, put in layer.put.items()])

    # ----------------------------------------------------------------------------------------------- steps of an exit

    def leave(self, layer: PlainLayer, scopes: Sequence[Scope]) -> None:
        cells = [cell for cell in layer.put if cell.scope in scopes]
        with self.busy():
            writes = [write for cell in cells for write in self.struck_out(layer, cell)]
            for cell in cells:
                del layer.put[cell]
            if not layer.put and layer in self.layers:
                self.layers.remove(layer)
            self.put_back(writes)

    def struck_out(self, layer: PlainLayer, cell: Cell) -> list[tuple[Cell, Raw, Raw]]:
        """Hands what the layer found in one cell to the newer ones, and says what has to be written, over what."""
        newer = self.newer(layer, cell)
        was, now = layer.put[cell], layer.found[cell]
        for above in newer:
            above.found[cell] = self.moved(cell, above.found[cell], was, now)
            was, now = above.put[cell], above.edits[cell](above.found[cell])
            above.put[cell] = now
        return [] if newer and was == now else [(cell, now, was)]

    def newer(self, layer: PlainLayer, cell: Cell) -> list[PlainLayer]:
        above = self.layers[self.layers.index(layer) + 1 :]
        return [a for a in above if cell in a.put and (cell.scope == "process" or a.thread == layer.thread)]

    def moved(self, cell: Cell, found: Raw, was: Raw, now: Raw) -> Raw:
        return cell.moved(found, was, now)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        refused: list[BaseException] = []
        for cell, raw, over in reversed(writes):
            try:
                cell.write(raw, over)
            except BaseException as error:
                refused.append(error)
        for error in refused:
            if not isinstance(error, Exception):
                raise error
        if refused:
            raise RestoreError("not everything could be put back") from refused[0]

    # ------------------------------------------------------------------------------- a collection in the middle of one

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While one layer comes or goes the others wait; what a collection opens and closes meanwhile does not."""
        outer, self.settled = self.settled, set(self.layers)
        try:
            yield
        finally:
            self.settled = outer

    def when_settled(self, layer: PlainLayer, act: Callable[[], None]) -> None:
        if layer in self.settled:
            self.late.append(act)
        else:
            act()
            self.catch_up()

    def catch_up(self) -> None:
        while self.late and not self.settled:
            self.late.pop(0)()
