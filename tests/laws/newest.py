"""Laws 3 and 4 over made-up state: hypothesis drives layers through simulated threads, and the timelines must agree.

``NewestWins`` opens and closes in any order; somebody else writes in between, and threads close others' blocks.
``Whole`` adds entries that are refused half way; ``Collected`` adds collections that close forgotten blocks half way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.laws.layers import Layers, Maker
from tests.laws.timeline import Timeline
from tests.laws.violation import Violation, holds
from tests.laws.world import EDITS, START, THREADS, Asked, World, replaced
from torchturbo.settings._base import Write

threads = st.sampled_from(THREADS)
asked = st.dictionaries(st.sampled_from(sorted(EDITS)), st.integers(0, 11), min_size=1).map(
    lambda drawn: {name: sorted(EDITS[name])[at % len(EDITS[name])] for name, at in drawn.items()}
)
which = st.integers(0, 11)


class Interrupted(BaseException):
    """Like KeyboardInterrupt: no Exception, and nobody's fault."""


class Machine(RuleBasedStateMachine):
    """What the machines below share: a world, the layers that are on trial, and the timelines."""

    make: ClassVar[Maker]

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.layers: Layers = type(self).make()
        self.timelines = {key: Timeline(value) for key, value in self.world.values.items()}
        self.open: list[tuple[int, Any, int, Asked]] = []  # name, layer, thread, what it asks
        self.astray: list[tuple[int, Any, int]] = []
        self.opened = 0
        self.fresh = 1000

    def writes(self, asked: Asked) -> Sequence[Write]:
        return [(self.world.cells[name], EDITS[name][edit]) for name, edit in asked.items()]

    def key(self, name: str, thread: int) -> object:
        return (name, thread) if name.startswith("own") else name

    def note_open(self, layer: Any, thread: int, asked: Asked) -> None:
        self.opened += 1
        self.open.append((self.opened, layer, thread, asked))
        for name, edit in asked.items():
            self.timelines[self.key(name, thread)].opened(self.opened, EDITS[name][edit])

    def note_closed(self, name: int, scopes: str = "process thread") -> None:
        for key, timeline in self.timelines.items():
            if ("thread" if isinstance(key, tuple) else "process") in scopes:
                timeline.closed(name)

    @invariant()
    def the_newest_is_in_force(self) -> None:
        expected = {key: timeline.in_force() for key, timeline in self.timelines.items()}
        wrong = {
            key: (value, self.world.values[key]) for key, value in expected.items() if value != self.world.values[key]
        }
        holds(not wrong, f"law 3: (must be, is) of each: {wrong}")

    def teardown(self) -> None:
        self.world.at_access = None
        for name, layer, thread, _ in self.open[1::2] + self.open[::2]:
            self.world.thread = thread
            self.layers.close(layer, thread)
            self.note_closed(name)
        for name, layer, thread in self.astray:
            self.world.thread = thread
            self.layers.close_part(layer, thread, "thread")
            self.note_closed(name)
        self.the_newest_is_in_force()
        for timeline in self.timelines.values():
            holds(
                all(layer is None for layer, _ in timeline.items), "the model has lost count, and so this test is wrong"
            )


class NewestWins(Machine):
    """Law 3: entries and exits in any order, over threads, with foreign writes between them."""

    @rule(asked=asked, thread=threads)
    def enter(self, asked: Asked, thread: int) -> None:
        self.world.thread = thread
        self.note_open(self.layers.open(self.writes(asked), thread), thread, asked)

    @precondition(lambda self: self.open)
    @rule(which=which)
    def leave(self, which: int) -> None:
        name, layer, thread, _ = self.open.pop(which % len(self.open))
        self.world.thread = thread
        self.layers.close(layer, thread)
        self.note_closed(name)

    @rule(
        cell=st.sampled_from(sorted(set(START) - {"flag"})),
        parts=st.sets(st.integers(0, 2), min_size=1),
        thread=threads,
    )
    def somebody_else_writes(self, cell: str, parts: set[int], thread: int) -> None:
        # Always a value that nobody else writes, or it could not be told from a layer's.
        values = {part: self.fresh + part for part in parts | {0}}
        self.fresh += 1000
        self.world.thread = thread
        self.world.foreign(cell, values)
        self.timelines[self.key(cell, thread)].foreign(replaced(values))

    @precondition(lambda self: self.open)
    @rule(which=which)
    def leave_in_another_thread(self, which: int) -> None:
        name, layer, thread, _ = self.open.pop(which % len(self.open))
        self.world.thread = (thread + 1) % len(THREADS)
        self.layers.close_part(layer, thread, "process")
        self.note_closed(name, "process")
        self.astray.append((name, layer, thread))

    @precondition(lambda self: self.astray)
    @rule(which=which)
    def settle(self, which: int) -> None:
        name, layer, thread = self.astray.pop(which % len(self.astray))
        self.world.thread = thread
        self.layers.close_part(layer, thread, "thread")
        self.note_closed(name)


class Whole(NewestWins):
    """Law 4: an entry that is refused at any access, before it writes or after, leaves no trace."""

    @rule(asked=asked, thread=threads, after=st.integers(0, 12), error=st.sampled_from((RuntimeError, Interrupted)))
    def enter_refused(self, asked: Asked, thread: int, after: int, error: type[BaseException]) -> None:
        planted = error("planted")

        def refuse(kind: str) -> None:
            raise planted

        self.world.thread = thread
        self.world.after(after, refuse)
        try:
            layer = self.layers.open(self.writes(asked), thread)
        except BaseException as seen:
            holds(seen is planted, f"law 4: the entry failed with {planted!r} and raised {seen!r}")
        else:
            self.note_open(layer, thread, asked)
        self.world.at_access = None


class Collected(NewestWins):
    """Law 4 when a garbage collection half way closes a forgotten generator's block: as if it had come right after."""

    @precondition(lambda self: self.open)
    @rule(asked=asked, thread=threads, after=st.integers(0, 12), which=which, busy=st.booleans())
    def enter_while_collecting(self, asked: Asked, thread: int, after: int, which: int, busy: bool) -> None:
        forgotten = self.open[which % len(self.open)]
        self.world.thread = thread
        self.world.after(after, lambda kind: self._collect(forgotten, thread, busy))
        layer = self.layers.open(self.writes(asked), thread)
        happened = self.world.at_access is None
        self.world.at_access = None
        self.note_open(layer, thread, asked)
        if happened:
            self._note_collected(forgotten, thread)

    @precondition(lambda self: len(self.open) > 1)
    @rule(left=which, after=st.integers(0, 6), which=which, busy=st.booleans())
    def leave_while_collecting(self, left: int, after: int, which: int, busy: bool) -> None:
        name, layer, thread, _ = self.open.pop(left % len(self.open))
        forgotten = self.open[which % len(self.open)]
        self.world.thread = thread
        self.world.after(after, lambda kind: self._collect(forgotten, thread, busy))
        self.layers.close(layer, thread)
        happened = self.world.at_access is None
        self.world.at_access = None
        self.note_closed(name)
        if happened:
            self._note_collected(forgotten, thread)

    def _collect(self, forgotten: tuple[int, Any, int, Asked], thread: int, busy: bool) -> None:
        if busy:  # the generator has a block of its own in a `finally:`
            self.layers.close(self.layers.open(self.writes({"number": "3", "own": "2"}), thread), thread)
        _, layer, its, _ = forgotten
        if its == thread:
            self.layers.close(layer, thread)
        else:
            self.layers.close_part(layer, its, "process")

    def _note_collected(self, forgotten: tuple[int, Any, int, Asked], thread: int) -> None:
        self.open.remove(forgotten)
        name, layer, its, _ = forgotten
        if its == thread:
            self.note_closed(name)
        else:
            self.note_closed(name, "process")
            self.astray.append((name, layer, its))


def judge(machine: type[Machine], make: Maker, *, examples: int, shrink: bool = True) -> None:
    """Drives a machine over one implementation.

    Raises:
        Violation: some sequence of events does not end as the model says, with the shortest one found.
    """
    on_trial = type(machine.__name__, (machine,), {"make": staticmethod(make)})
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    try:
        run_state_machine_as_test(
            on_trial,
            settings=settings(
                max_examples=examples,
                stateful_step_count=12,
                phases=phases,
                deadline=None,
                database=None,
                derandomize=True,
                report_multiple_bugs=False,
                print_blob=False,
                verbosity=Verbosity.normal if shrink else Verbosity.quiet,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__} where nothing was to be refused: {error}") from error
