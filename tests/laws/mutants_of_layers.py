"""Layers with one fault each: the plain ones, of which one step is broken, and the laws that must not accept that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tests.laws import newest, whole
from tests.laws.catalogue import everything_at_once
from tests.laws.layers import SCOPES, Maker, Plain, PlainLayer
from tests.laws.pristine import isolated
from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell, Scope, Write
from torchturbo.settings._edits import Raw

Law = Callable[[Any], None]


def newest_wins(make: Maker) -> None:
    """Law 3 over made-up state."""
    newest.judge(newest.NewestWins, make, examples=300, shrink=False)


def whole_in_any_order(make: Maker) -> None:
    """Law 4 over made-up state, at any step of any sequence."""
    newest.judge(newest.Whole, make, examples=300, shrink=False)


def collected_in_any_order(make: Maker) -> None:
    """Law 4 over made-up state, with collections in the middle."""
    newest.judge(newest.Collected, make, examples=300, shrink=False)


def entry_is_whole(make: Maker) -> None:
    """Law 4 over every cell of torch."""
    isolated(lambda: whole.entry_is_whole(everything_at_once(), make))


# -------------------------------------------------------------------------------------------------- faults of an exit


class BaseOnly(Plain):
    """Every exit goes back to what was there before the first layer."""

    laws = (newest_wins,)

    def struck_out(self, layer: PlainLayer, cell: Cell) -> list[tuple[Cell, Raw, Raw]]:
        oldest = next(its for its in self.layers if cell in its.put)
        return [(cell, oldest.found[cell], layer.put[cell])]


class LastInFirstOut(Plain):
    """Every exit writes back what its entry found, whoever stands above; right only if the newest leaves first."""

    laws = (newest_wins,)

    def struck_out(self, layer: PlainLayer, cell: Cell) -> list[tuple[Cell, Raw, Raw]]:
        return [(cell, layer.found[cell], layer.put[cell])]


class HandsNothingOn(Plain):
    """A layer that leaves from beneath forgets what it found, instead of handing it to the next."""

    laws = (newest_wins,)

    def struck_out(self, layer: PlainLayer, cell: Cell) -> list[tuple[Cell, Raw, Raw]]:
        return [] if self.newer(layer, cell) else [(cell, layer.found[cell], layer.put[cell])]


class ForgetsToWorkOutAnew(Plain):
    """A newer layer learns what it now stands on, but its value is not worked out anew from that."""

    laws = (newest_wins,)

    def struck_out(self, layer: PlainLayer, cell: Cell) -> list[tuple[Cell, Raw, Raw]]:
        newer = self.newer(layer, cell)
        if not newer:
            return [(cell, layer.found[cell], layer.put[cell])]
        newer[0].found[cell] = self.moved(cell, newer[0].found[cell], layer.put[cell], layer.found[cell])
        return []


class TellsOnlyTheNext(Plain):
    """The next newer layer is worked out anew, those above it are not."""

    laws = (newest_wins,)

    def newer(self, layer: PlainLayer, cell: Cell) -> list[PlainLayer]:
        return super().newer(layer, cell)[:1]


class MovesTuplesWhole(Plain):
    """A tuple of which somebody else wrote one part is not moved at all, though the other parts were the layer's."""

    laws = (newest_wins,)

    def moved(self, cell: Cell, found: Raw, was: Raw, now: Raw) -> Raw:
        return now if found == was else found


class TakesForeignWrites(Plain):
    """What somebody else wrote between two layers is lost when the lower one leaves."""

    laws = (newest_wins,)

    def moved(self, cell: Cell, found: Raw, was: Raw, now: Raw) -> Raw:
        return now


class ForgetsNames(Plain):
    """A tuple with names comes out of a move as one without."""

    laws = (newest_wins,)

    def moved(self, cell: Cell, found: Raw, was: Raw, now: Raw) -> Raw:
        moved = super().moved(cell, found, was, now)
        return tuple(moved) if isinstance(moved, tuple) else moved


class BlindToThreads(Plain):
    """A thread's own cell is handed on to layers of other threads."""

    laws = (newest_wins,)

    def newer(self, layer: PlainLayer, cell: Cell) -> list[PlainLayer]:
        return [above for above in self.layers[self.layers.index(layer) + 1 :] if cell in above.put]


class OneThreadsView(Plain):
    """A cell of the process is handed on to layers of the same thread only."""

    laws = (newest_wins,)

    def newer(self, layer: PlainLayer, cell: Cell) -> list[PlainLayer]:
        return [above for above in super().newer(layer, cell) if above.thread == layer.thread]


class TakesAllOut(Plain):
    """A layer closed by another thread is taken out with the thread's own part, in the wrong thread."""

    laws = (newest_wins,)

    def close_part(self, layer: PlainLayer, thread: int, scope: Scope) -> None:
        self.when_settled(layer, lambda: self.leave(layer, SCOPES))


class DropsACell(Plain):
    """The last cell of a layer is not put back."""

    laws = (newest_wins,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        super().put_back(writes[:-1])


class SwapsTheValues(Plain):
    """What was put is written back, instead of what was found."""

    laws = (newest_wins,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        super().put_back([(cell, over, raw) for cell, raw, over in writes])


class SwapsTwoParts(Plain):
    """The first two parts of a tuple come back the wrong way round."""

    laws = (newest_wins,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        super().put_back([(cell, _swapped(raw), over) for cell, raw, over in writes])


def _swapped(raw: Raw) -> Raw:
    if not isinstance(raw, tuple):
        return raw
    parts = (raw[1], raw[0], *raw[2:])
    return type(raw)(*parts) if hasattr(raw, "_fields") else parts


class TakesAnotherWayBack(Plain):
    """Cells are put back in the order in which they were written, not in the opposite one."""

    laws = (whole.walks_back,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        super().put_back(writes[::-1])


class StopsAtARefusal(Plain):
    """The first cell that torch refuses to put back keeps the others from coming back."""

    laws = (whole.exit_refused,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        for cell, raw, over in reversed(writes):
            try:
                cell.write(raw, over)
            except Exception as error:
                raise RestoreError("refused") from error


class StopsAtAnInterrupt(Plain):
    """An interrupt in the middle of an exit keeps the other cells from coming back."""

    laws = (whole.exit_refused,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        refused = None
        for cell, raw, over in reversed(writes):
            try:
                cell.write(raw, over)
            except Exception as error:
                refused = error
        if refused:
            raise RestoreError("refused") from refused


class SaysNothing(Plain):
    """What could not be put back is passed over in silence."""

    laws = (whole.exit_refused,)

    def put_back(self, writes: list[tuple[Cell, Raw, Raw]]) -> None:
        try:
            super().put_back(writes)
        except RestoreError:
            return


# ------------------------------------------------------------------------------------------------- faults of an entry


class NoWayBack(Plain):
    """An entry that fails leaves what it had put so far."""

    laws = (whole_in_any_order, entry_is_whole)

    def roll_back(self, layer: PlainLayer) -> None:
        return


class SparesTheFailing(Plain):
    """An entry that fails puts back every cell but the one that failed, which may have stored before it raised."""

    laws = (whole_in_any_order, entry_is_whole)

    def roll_back(self, layer: PlainLayer) -> None:
        self.put_back([(cell, layer.found[cell], put) for cell, put in layer.put.items()][:-1])


class OnlyExceptions(Plain):
    """An entry goes back on an Exception, and not on an interrupt."""

    laws = (whole_in_any_order, entry_is_whole)

    def open(self, writes: Sequence[Write], thread: int = 0) -> PlainLayer:
        layer = PlainLayer(writes, thread)
        try:
            self.take(layer)
        except Exception:
            self.roll_back(layer)
            raise
        self.layers.append(layer)
        return layer


class TooEarly(Plain):
    """A layer is in the list before it is in force, and an entry that fails leaves it there."""

    laws = (whole_in_any_order,)

    def open(self, writes: Sequence[Write], thread: int = 0) -> PlainLayer:
        layer = PlainLayer(writes, thread)
        self.layers.append(layer)
        try:
            self.take(layer)
        except BaseException:
            self.roll_back(layer)
            raise
        return layer


class RaisesItsOwn(Plain):
    """An entry that fails raises an error of its own, and hides the one that says why."""

    laws = (whole_in_any_order, entry_is_whole)

    def open(self, writes: Sequence[Write], thread: int = 0) -> PlainLayer:
        try:
            return super().open(writes, thread)
        except Exception as error:
            raise RestoreError("could not be entered") from error


# ------------------------------------------------------------------------------------- faults of a collection half way


class WaitsForNothing(Plain):
    """A block that a collection closes half way through an entry or exit is taken out at once."""

    laws = (collected_in_any_order,)

    def busy(self) -> AbstractContextManager[None]:
        return nullcontext()


class NeverCatchesUp(Plain):
    """A block that a collection closes half way is put off, and then forgotten."""

    laws = (collected_in_any_order,)

    def catch_up(self) -> None:
        return


class PutsAllOff(Plain):
    """A block that is opened and closed within a collection half way is put off as well, and so is there in between."""

    laws = (collected_in_any_order,)

    def when_settled(self, layer: PlainLayer, act: Callable[[], None]) -> None:
        if self.under_way:
            self.late.append(act)
        else:
            act()
            self.catch_up()

    under_way = 0

    def take(self, layer: PlainLayer) -> None:
        self.under_way += 1
        try:
            super().take(layer)
        finally:
            self.under_way -= 1


class HalfAnEntry(Plain):
    """An entry raises because a block that a collection closed half way could not be put back, and stays in force."""

    laws = (whole.late_refused,)

    def open(self, writes: Sequence[Write], thread: int = 0) -> PlainLayer:
        layer = PlainLayer(writes, thread)
        with self.busy():
            try:
                self.take(layer)
                self.layers.append(layer)
            except BaseException:
                self.roll_back(layer)
                raise
        self.catch_up()
        return layer


MUTANTS: tuple[Any, ...] = tuple(
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, Plain) and found is not Plain
)
