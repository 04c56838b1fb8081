"""Law 4: an entry is wholly in force or leaves no trace, and an exit puts back all that torch lets it put back.

Failures are planted at every access, as ordinary exceptions and as one that is none (like KeyboardInterrupt), before
a value is stored and after. That they may come at any step of any sequence is in `newest.Whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from tests.laws.layers import Layers, Maker, Ours
from tests.laws.look import State, differences, look
from tests.laws.newest import Interrupted
from tests.laws.violation import Violation, holds
from tests.laws.world import EDITS, World
from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Edit, Raw

ASKED = {"number": "2", "pair": "(1, 2)", "own": "1", "point": "(1, 1, 1)"}
ERRORS: tuple[type[BaseException], ...] = (RuntimeError, Interrupted)


def _writes(world: World) -> list[Write]:
    return [(world.cells[name], EDITS[name][edit]) for name, edit in ASKED.items()]


def walks_back(make: Maker) -> None:
    """An exit goes back through the states that the entry came through: torch may check one against another.

    Raises:
        Violation: it takes another way.
    """
    world = World()
    layers = make()
    start = dict(world.values)
    layer = layers.open(_writes(world))
    there = [start, *world.visited]
    world.visited.clear()
    layers.close(layer)
    back = [there[-1], *world.visited]
    holds(back == there[::-1], f"law 4: an exit takes another way back than the entry came: {there} and {back}")


def exit_refused(make: Maker) -> None:
    """One cell's restore fails: every other cell is back, and it is raised (as RestoreError, if an Exception).

    Raises:
        Violation: another cell is not back, or nothing is raised.
    """
    for name in ASKED:
        for error in ERRORS:
            for beneath in (False, True):
                _exit_refused(make, name, error("planted"), beneath=beneath)


def _exit_refused(make: Maker, name: str, planted: BaseException, *, beneath: bool) -> None:
    world = World()
    start = dict(world.values)
    refused: list[BaseException] = []
    inner = world.cells[name]

    def write(raw: Raw, over: Raw) -> None:
        if raw == start[world.key(name)]:
            refused.append(planted)
            raise planted
        inner.write(raw, over)

    world.cells[name] = replace(inner, write=write)
    layers = make()
    layer = layers.open(_writes(world))
    other = layers.open([(world.cells["flag"], EDITS["flag"]["on"])]) if beneath else None
    where = f"law 4: {name} cannot be put back{' from beneath' if beneath else ''} ({planted!r})"
    wanted = RestoreError if isinstance(planted, Exception) else type(planted)
    try:
        layers.close(layer)
    except BaseException as error:
        holds(isinstance(error, wanted), f"{where}, and {error!r} was raised")
    else:
        raise Violation(f"{where}, and nothing was said")
    holds(refused, f"{where}: it was not even tried")
    if other is not None:
        holds(world.values["flag"], f"{where}, and a newer layer is no longer in force")
        layers.close(other)
    for key, value in start.items():
        if key != world.key(name):
            holds(world.values[key] == value, f"{where}, and {key} is {world.values[key]!r} instead of {value!r}")
    _still_works(make, layers, where)


def late_refused(make: Maker) -> None:
    """A forgotten block is closed by a collection half way through an entry or an exit, and torch refuses its restore.

    The entry is in force or it is not; the exit has happened; and what comes afterwards works as ever.

    Raises:
        Violation: an entry is half in force, an exit has not happened, or the layers no longer work.
    """
    for entering in (True, False):
        world = World()
        stubborn = replace(world.cells["number"], write=_only_once(world.cells["number"]))
        layers = make()
        forgotten = layers.open([(stubborn, EDITS["number"]["1"])])
        writes = [(world.cells["pair"], EDITS["pair"]["(1, 2)"]), (world.cells["flag"], EDITS["flag"]["on"])]
        where = f"law 4: a forgotten block's restore is refused during an {'entry' if entering else 'exit'}"
        if entering:
            world.after(1, lambda kind, layers=layers, forgotten=forgotten: layers.close(forgotten))
            try:
                layer = layers.open(writes)
            except RestoreError:
                holds(
                    world.values["pair"] == (0, 0) and not world.values["flag"], f"{where}, and the entry left a trace"
                )
            else:
                holds(
                    world.values["pair"] == (1, 2) and world.values["flag"], f"{where}, and the entry is not in force"
                )
                layers.close(layer)
        else:
            layer = layers.open(writes)
            world.after(0, lambda kind, layers=layers, forgotten=forgotten: layers.close(forgotten))
            with suppress(RestoreError):
                layers.close(layer)
        holds(world.values["pair"] == (0, 0) and not world.values["flag"], f"{where}, and something is left")
        _still_works(make, layers, where)


def _only_once(cell: Cell) -> Callable[[Raw, Raw], None]:
    """A write that works the first time and is refused from then on."""
    written: list[Raw] = []

    def write(raw: Raw, over: Raw) -> None:
        if written:
            raise RuntimeError("planted")
        written.append(raw)
        cell.write(raw, over)

    return write


def _still_works(make: Maker, layers: Layers, where: str) -> None:
    """Layers over other cells come and go as ever, in any order."""
    world = World()
    start = dict(world.values)
    one = layers.open(_writes(world))
    other = layers.open([(world.cells["number"], EDITS["number"]["3"])])
    layers.close(one)
    holds(world.values["number"] == 3, f"{where}; after that the newest is not in force")
    layers.close(other)
    holds(world.values == start, f"{where}; after that layers leave something: {world.values}")


# ---------------------------------------------------------------------------------------------------- over torch itself


def entry_is_whole(writes: Sequence[Write], make: Maker = Ours, see: Callable[[], State] = look) -> None:
    """An entry into real cells fails at each of them, on the way in, in every way: nothing is left in any.

    Args:
        writes: what the entry would put in force.
        make: the layers on trial.
        see: looks at everything that could be left.

    Raises:
        Violation: something is left, or another exception is seen.
    """
    before = see()
    for place, (cell, _) in enumerate(writes):
        for way, broken, error in _ways_to_fail(writes, place):
            layers = make()
            where = f"law 4: {way} {cell.name} ({error!r})"
            try:
                layers.open(broken)
            except BaseException as seen:
                holds(seen is error, f"{where}, and what was raised is {seen!r}")
            else:
                raise Violation(f"{where}, and the entry went on")
            found = differences(before, see())
            holds(not found, f"{where}, and something is left: {found}")


def _ways_to_fail(writes: Sequence[Write], place: int) -> Iterator[tuple[str, list[Write], BaseException]]:
    cell, edit = writes[place]
    before = cell.read()
    ways = [("reading", _read), ("working out", _edit)]
    if edit(before) != before:
        ways += [("before writing", _before_it_stores), ("after writing", _after_it_stored)]
    for kind in ERRORS:
        for way, plant in ways:
            error = kind("planted")
            yield way, [*writes[:place], plant(cell, edit, error), *writes[place + 1 :]], error


def _read(cell: Cell, edit: Edit, error: BaseException) -> Write:
    def read() -> Raw:
        raise error

    return replace(cell, read=read), edit


def _edit(cell: Cell, edit: Edit, error: BaseException) -> Write:
    def fail(beneath: Raw) -> Raw:
        raise error

    return cell, fail


def _before_it_stores(cell: Cell, edit: Edit, error: BaseException) -> Write:
    return _first_write_fails(cell, error, stores=False), edit


def _after_it_stored(cell: Cell, edit: Edit, error: BaseException) -> Write:
    return _first_write_fails(cell, error, stores=True), edit


def _first_write_fails(cell: Cell, error: BaseException, *, stores: bool) -> Cell:
    """The cell; but its first write fails, and the one that takes it back works."""
    failed: list[bool] = []

    def write(raw: Raw, over: Raw) -> None:
        if failed or stores:
            cell.write(raw, over)
        if not failed:
            failed.append(True)
            raise error

    return replace(cell, write=write)
