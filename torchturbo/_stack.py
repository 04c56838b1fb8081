"""The layers in force over the values beneath: they leave in any order, and what was beneath comes back exactly.

Each layer keeps what it found in every cell and what it put there. The newest layer leaves by writing back what it
found. One that leaves from beneath newer layers writes nothing that they hold: it hands what it found to the next newer
layer, which then stands on that instead, and so on upwards. What somebody else wrote between two layers is part of what
the upper one found, so it comes back when that one leaves.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import NoReturn

from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell, Scope, Write
from torchturbo.settings._edits import Edit, Raw, always

Held = tuple[Cell, Edit, Raw, Raw]
"""A cell, the edit that was asked for, the raw state found, and the raw state put in force."""


class Layer:
    """One entry's values, over what it found.

    Attributes:
        writes: its cells, each at most once, with the edit that was asked for.
        held: what it keeps of each cell, in the order of `writes`, as far as it has come.
    """

    __slots__ = ("held", "writes")

    def __init__(self, writes: tuple[Write, ...]) -> None:
        self.writes = writes
        self.held: list[Held] = []

    def split(self) -> None:
        """Has it hold what it holds at once by itself, so that others that hold a part can leave beneath it."""
        self.held[:] = self.parts()

    def parts(self) -> Iterator[Held]:
        """What it keeps of each cell, those that it holds at once by themselves."""
        for cell, edit, found, put in self.held:
            if cell.parts:
                yield from ((part, always(p), f, p) for part, f, p in zip(cell.parts, found, put, strict=True))
            else:
                yield cell, edit, found, put

    def place(self, cell: Cell) -> int | None:
        """Where `cell` stands in `held`, or None if the layer does not hold it."""
        for place, held in enumerate(self.held):
            if held[0] is cell:
                return place
        return None


_BOTH: tuple[Scope, ...] = ("process", "thread")


_LOCK = threading.RLock()
_acquire, _release, _is_owned = _LOCK.acquire, _LOCK.release, _LOCK._is_owned  # type: ignore[attr-defined]


class Stack:
    """The layers of all threads, oldest first.

    Cells of the process are held by the layers of every thread, cells of a thread by its own alone; so each call is
    given the list of the calling thread's layers.

    Attributes:
        layers: those of all threads.
        lock: for who does more than one thing; each call takes it by itself.
    """

    __slots__ = ("_late", "_settled", "layers", "lock")

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.lock = _LOCK
        # A garbage collection in the middle of a push or pop can close a forgotten generator's block. What is under way
        # would not know of it, so layers that stood when it began (their number is kept here) leave after it.
        self._settled: int | None = None
        self._late: list[tuple[Layer, list[Layer], tuple[Scope, ...]]] = []

    def push(self, layer: Layer, own: list[Layer]) -> None:
        """Puts a new layer in force, in wholly or not at all.

        Args:
            layer: what to put in force.
            own: the layers of this thread, to which it is added.
        """
        try:
            _acquire()  # `with` takes twice as long
            layers, held = self.layers, layer.held
            outer = self._settled
            if outer is None:
                self._settled = len(layers)
            try:
                for cell, edit in layer.writes:
                    # What is called by a name of its own is found at once.
                    read = cell.read
                    beneath = read()
                    # Most edits are constants.
                    wanted = edit.value if type(edit) is always else edit(beneath)
                    held.append((cell, edit, beneath, wanted))
                    if wanted is not beneath and wanted != beneath:
                        write = cell.write
                        write(wanted, beneath)
                layers.append(layer)
                own.append(layer)
                if self._late and outer is None:
                    self._leave_late()
            except BaseException:
                if layer in layers:
                    layers.remove(layer)
                if layer in own:
                    own.remove(layer)
                _restore(held)
                raise
            finally:
                self._settled = outer
        except BaseException:
            _let_go()
            raise
        _release()

    def pop(self, layer: Layer, own: list[Layer], scopes: tuple[Scope, ...] = _BOTH) -> None:
        """Takes a layer out of force, wherever it stands.

        Args:
            layer: what to take out.
            own: the layers of the thread that pushed it.
            scopes: which part of it; a thread's part can only be put back by that thread.

        Raises:
            RestoreError: torch refused a value; every other one has been put back.
        """
        try:
            _acquire()
            layers = self.layers
            outer = self._settled
            if outer is None:
                self._settled = len(layers) - 1
            try:
                if outer is not None and layer in layers[:outer]:
                    self._late.append((layer, own, scopes))
                elif scopes is _BOTH and layers[-1] is layer and own[-1] is layer:
                    del layers[-1], own[-1]
                    held = layer.held
                    try:
                        while held:
                            cell, _, found, put = held[-1]
                            write = cell.write
                            write(found, put)
                            del held[-1]
                    except BaseException as error:
                        _restore(held, error)
                else:
                    self._pull_out(layer, own, scopes)
            finally:
                try:
                    if self._late and outer is None:
                        self._leave_late()
                finally:
                    self._settled = outer
        except BaseException:
            _let_go()
            raise
        _release()

    def standing(self, layer: Layer) -> dict[Cell, Raw]:
        """What stands in a layer's cells now, with what the code in it has made of them.

        Where newer layers hold a cell, that is what the next newer one has found in it. Thread-local cells of another
        thread's layer cannot be asked for.

        Args:
            layer: one that is in force; of this thread, and no newer one of this thread is in force.
        """
        newer = self.layers[self.layers.index(layer) + 1 :]
        stands = {}
        for cell, *_ in layer.parts():
            above = newer if cell.scope == "process" else ()
            held = next((other.held[place] for other in above if (place := other.place(cell)) is not None), None)
            stands[cell] = cell.read() if held is None else held[2]
        return stands

    def _leave_late(self) -> None:
        failed: list[BaseException] = []
        while self._late:
            try:
                self._pull_out(*self._late.pop())
            except BaseException as error:
                failed.append(error)
        if failed:
            _raise_first(failed)

    def _pull_out(self, layer: Layer, own: list[Layer], scopes: tuple[Scope, ...]) -> None:
        """Takes a layer out from beneath newer ones."""
        newer: dict[Scope, list[Layer]] = {}
        for scope in scopes:
            layers = self.layers if scope == "process" else own
            standing = layers.index(layer)
            newer[scope] = layers[standing + 1 :]
            del layers[standing]
        for each in (layer, *itertools.chain(*newer.values())):
            each.split()
        failed: list[BaseException] = []
        for cell, _, found, put in reversed(layer.held):
            if cell.scope not in newer:
                continue
            was, now, kept = put, found, False
            for above in newer[cell.scope]:
                place = above.place(cell)
                if place is None:
                    continue
                kept = True
                _, edit, beneath, over = above.held[place]
                beneath = cell.moved(beneath, was, now)
                was, now = over, edit(beneath)
                above.held[place] = (cell, edit, beneath, now)
            if kept and now == was:
                continue
            try:
                cell.write(now, was)
            except BaseException as error:
                failed.append(_refused(cell, error))
        if failed:
            _raise_first(failed)


def _let_go() -> None:
    """Lets the lock go, if it was had: an interrupt can come while one waits for it, and at once afterwards."""
    if _is_owned():
        _release()


def _restore(left: list[Held], error: BaseException | None = None) -> None:
    """Writes back what the newest layer found, newest cell first.

    Args:
        left: what it still holds.
        error: what has been raised in doing so, by the last of these.
    """
    failed: list[BaseException] = []
    tried = None
    # An interrupt can come between any two lines: the cell it came at is written once more.
    while left or error is not None:
        if error is None:
            try:
                while left:
                    cell, _, found, put = left[-1]
                    cell.write(found, put)
                    left.pop()
            except BaseException as raised:
                error = raised
        elif left and (isinstance(error, Exception) or tried is left[-1]):
            failed.append(_refused(left.pop()[0], error))
            error = None
        else:
            tried = left[-1] if left else None
            failed.append(error)
            error = None
    if failed:
        _raise_first(failed)


def _refused(cell: Cell, error: BaseException) -> BaseException:
    """The error to raise once everything else has been put back: an interrupt stays what it is."""
    if not isinstance(error, Exception):
        return error
    refused = RestoreError(f"torch refused to put back {cell.name}: {error}")
    refused.__cause__ = error
    return refused


def _raise_first(failed: list[BaseException]) -> NoReturn:
    raise next((error for error in failed if not isinstance(error, RestoreError)), failed[0])
