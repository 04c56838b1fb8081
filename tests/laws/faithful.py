"""Law 1: what is read can be written back, what is written is read, and what is declared of who sees it is true."""

from __future__ import annotations

from collections.abc import Callable

from tests.laws.catalogue import Case
from tests.laws.crew import Crew, in_new_thread
from tests.laws.layers import Maker, Ours
from tests.laws.look import State, differences, look
from tests.laws.violation import Violation, holds
from torchturbo.settings._base import Cell
from torchturbo.settings._cells import UNDECIDED
from torchturbo.settings._edits import Raw


def unchanged(before: State, what: str) -> None:
    """Raises unless the state is as it was `before`."""
    found = differences(before, look())
    holds(not found, f"{what}: {found}")


def faithful(case: Case, make: Maker = Ours) -> None:
    """A value of a setting is put in force, as it says, and taken out again, without a trace.

    Raises:
        Violation: it is not.
    """
    with case.here():
        _faithful(case, make)


def _faithful(case: Case, make: Maker) -> None:
    before = look()
    raws = {cell: cell.read() for cell in case.cells}
    unchanged(before, f"{case}: reading its cells changes something")
    for cell, raw in raws.items():
        holds(cell.read() == raw, f"{case}: {cell.name} reads {raw!r}, and then {cell.read()!r}")
        cell.write(raw, raw)
        unchanged(before, f"{case}: writing what was read of {cell.name}, {raw!r}, changes something")
    if case.refused:
        _refused(case, make, before)
        return
    for cell, edit in case.writes:
        _each_alone(case, cell, raws[cell], edit(raws[cell]))
        unchanged(before, f"{case}: {cell.name} was written and put back, and left something")
    layers = make()
    layer = layers.open(case.writes)
    now = case.setting.now()
    layers.close(layer)
    holds(now == case.value, f"{case} is in force, and now() is {now!r}")
    unchanged(before, f"{case} left something")
    for cell, raw in raws.items():
        holds(cell.read() == raw, f"{case}: {cell.name} was {raw!r} before and is {cell.read()!r} afterwards")


def _each_alone(case: Case, cell: Cell, before: Raw, wanted: Raw) -> None:
    cell.write(wanted, before)
    inside = cell.read()
    cell.write(before, wanted)
    holds(says(inside, wanted), f"{case}: {cell.name} was written {wanted!r}, and reads {inside!r}")


def says(read: Raw, written: Raw) -> bool:
    """Whether a reading is what was written; a reading may leave open what only another write would tell."""
    parts = zip(read, written, strict=True) if isinstance(written, tuple) else [(read, written)]
    return all(a == b or (a == UNDECIDED and b in ("tf32", "default")) for a, b in parts)


def _refused(case: Case, make: Maker, before: State) -> None:
    try:
        make().open(case.writes)
    except RuntimeError:
        unchanged(before, f"{case} was refused by torch and left something")
    else:
        raise Violation(f"{case}: this build of torch was to refuse it")


def scope_is_true(case: Case, make: Maker = Ours) -> None:
    """A cell of the process is seen by every thread at once; a cell of a thread by no other, whatever its age.

    Raises:
        Violation: it is not.
    """
    if case.refused:
        return

    def read() -> dict[Cell, Raw]:
        return {cell: cell.read() for cell, _ in case.writes}

    with Crew(2) as (old, idle):
        before = read()
        others: dict[str, Callable[[Callable[[], dict[Cell, Raw]]], dict[Cell, Raw]]] = {
            "a thread that has used torch": old.do,
            "a thread that started before and has not used torch": idle.do,
            "a new thread": in_new_thread,
        }
        without = {"a thread that has used torch": old.do(read), "a new thread": in_new_thread(read)}
        without["a thread that started before and has not used torch"] = without["a new thread"]
        layers = make()
        layer = layers.open(case.writes)
        mine = read()
        theirs = {who: ask(read) for who, ask in others.items()}
        layers.close(layer)
        for who, seen in theirs.items():
            for cell in mine:
                if cell.scope == "process":
                    holds(
                        seen[cell] == mine[cell],
                        f"{case}: {cell.name} is the process's, and {who} reads {seen[cell]!r}",
                    )
                elif mine[cell] != before[cell]:
                    was = without[who][cell]
                    holds(seen[cell] == was, f"{case}: {cell.name} is a thread's own, and {who} reads {seen[cell]!r}")
        for who, ask in others.items():
            holds(ask(read) == without[who], f"{case} left something in {who}")
