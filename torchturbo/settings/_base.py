"""What a setting is: a name people type, what it may be, and exact readers and writers of torch's state.

A `Cell` is a piece of state that is read and written as a whole. What it reads is *raw*: opaque, comparable, and
enough to put the piece back exactly; torch's own getters often tell less (they resolve inheritance, drop half of
a pair, or raise). A `Setting` is one declaration on top of cells, from which the report, the command line, the
typed keywords, the documentation and the law tests all grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from torchturbo.errors import OptionValueError, near
from torchturbo.hardware import Hardware
from torchturbo.settings._edits import Edit, Raw, always

Scope = Literal["process", "thread"]
Write = tuple["Cell", Edit]

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


def moved(found: Raw, was: Raw, now: Raw) -> Raw:
    """What a layer stands on once the one beneath it no longer gives `was` but `now`, keeping what others wrote."""
    if isinstance(found, tuple):
        parts = [n if part == w else part for part, w, n in zip(found, was, now, strict=True)]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return now if found == was else found


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A piece of torch's state that is read and written as a whole.

    Attributes:
        name: for messages and tests.
        scope: ``"process"`` (every thread sees a write) or ``"thread"``.
        read: the exact state now, as an opaque comparable value.
        write: ``write(raw, over)`` puts `raw` in force, where `over` is what was in force as far as the caller knows.
        moved: what a layer stands on once the one beneath gives something else, as `moved` says it for most cells.
        parts: the cells that it stands for, where several are read and written at once, to save time. What it reads is
            what each of them does. A layer holds them by themselves once one leaves beneath it.
    """

    name: str
    scope: Scope
    read: Callable[[], Raw]
    write: Callable[[Raw, Raw], None]
    moved: Callable[[Raw, Raw, Raw], Raw] = moved
    parts: tuple[Cell, ...] = ()


def parts_of(writes: Iterable[Write]) -> Iterator[Write]:
    """The same writes; of a cell that stands for several, one of each."""
    for cell, edit in writes:
        if cell.parts and isinstance(edit, always):
            yield from ((part, always(raw)) for part, raw in zip(cell.parts, edit.value, strict=True))
        else:
            yield cell, edit


def cell(getter: str, setter: str, scope: Scope = "process") -> Cell | None:
    """The cell behind a plain getter and setter pair of ``torch._C``, or None where this torch has none."""
    get, put = getattr(torch._C, getter, None), getattr(torch._C, setter, None)
    if get is None or put is None:
        return None

    def write(raw: Raw, over: Raw) -> None:
        put(raw)

    return Cell(getter, scope, get, write)


@dataclass(frozen=True, slots=True)
class Values:
    """The values an option takes.

    Attributes:
        choices: every value, where they can be listed, as the words torch uses; beside a `kind` its words.
        aliases: other spellings, and the choice each stands for.
        kind: ``int``, ``float`` or ``str`` where the values cannot be listed.
        also: what else it takes, in words for the documentation.
        rule: what is wrong with a value of the right kind, as a sentence, or None.
    """

    choices: tuple[object, ...] = ()
    aliases: Mapping[object, object] = field(default_factory=dict)
    kind: type | None = None
    rule: Callable[[Any], str | None] = lambda value: None
    also: str = ""

    def parse(self, option: str, value: object) -> object:
        """The value in its one spelling.

        Raises:
            OptionValueError: `value` is not one that the option takes.
        """
        for choice in self.choices:
            # True == 1 and hash(True) == hash(1), so the types must agree as well.
            if type(value) is type(choice) and value == choice:
                return choice
        for alias, choice in self.aliases.items():
            if type(value) is type(alias) and value == alias:
                return choice
        wrong: str | None = None
        value = float(value) if self.kind is float and type(value) is int else value
        if self.kind is not None and type(value) is self.kind:
            wrong = self.rule(value)
            if wrong is None:
                return value
        raise OptionValueError(f"{option}={value!r}: {wrong or self._expected(value)}")

    def _expected(self, value: object) -> str:
        if self.kind is not None:
            also = "".join(f" or {word!r}" for word in self.choices)
            return f"expected {'an int' if self.kind is int else f'a {self.kind.__name__}'}{also}"
        listed = "expected one of " + ", ".join(repr(choice) for choice in self.choices)
        if not isinstance(value, str):
            return listed
        words = [word for word in (*self.choices, *self.aliases) if isinstance(word, str)]
        hint = near(value, words)
        return f"{listed}; {hint}" if hint.startswith("did you mean") else listed

    @property
    def annotation(self) -> str:
        """The values as a type annotation."""
        if self.kind is not None:
            words = ", ".join(f'"{word}"' for word in self.choices)
            return f"{self.kind.__name__} | Literal[{words}]" if words else self.kind.__name__
        if set(map(repr, self.choices)) == {"True", "False"}:
            return "bool"
        literal = f"Literal[{', '.join(repr(c) for c in self.choices if c is not None)}]".replace("'", '"')
        others = {type(value) for value in (*self.aliases, *self.choices) if value not in self.choices or value is None}
        types = {bool: "bool", torch.dtype: "torch.dtype", type(None): "None"}
        return " | ".join([literal, *(name for kind, name in types.items() if kind in others)])


def choice(*choices: object, **aliases: object) -> Values:
    """Values that can be listed; keywords give other spellings."""
    return Values(choices, dict(aliases.items()))


BOOL = choice(True, False)


def number(at_least: int, *words: str) -> Values:
    """Whole numbers from `at_least` on, as far as torch takes them, or one of some words."""

    def rule(value: int) -> str | None:
        if value < at_least:
            return f"expected at least {at_least}"
        return None if value < 2**31 else "expected less than 2**31"

    return Values(words, kind=int, rule=rule)


def _fine(hardware: Hardware, value: Any) -> str | None:
    return None


@dataclass(slots=True, eq=False)
class Setting:
    """One option: what it is called, what it may be, and which cells it writes.

    Attributes:
        help: one sentence.
        values: what it takes.
        cells: the cells whose raw state `show` explains; empty where this torch lacks the state.
        edits: from a value to the edit of each cell that has to change.
        show: from the raw state of `cells` to the value in the words of `values`.
        why_not: why the value has no effect on this hardware, as a sentence, or None.
        resolve: the value that ``"auto"`` and its like stand for on this hardware.
        missing: why this torch cannot do it at all, as a sentence, or None.
        told: what has come of it in this thread's block so far, as a sentence or None, where a value means something
            else for each thing that code comes with.
        left_to: who has shown itself to see to it in this thread's block, so that the block does no more; or None.
        name: the keyword; given by discovery, from the name of the variable.
        area: the file that declares it; given by discovery.
    """

    help: str
    values: Values
    cells: tuple[Cell, ...]
    edits: Callable[[Any, Hardware], tuple[Write, ...]]
    show: Callable[..., object]
    why_not: Callable[[Hardware, Any], str | None] = _fine
    resolve: Callable[[Any, Hardware], Any] = lambda value, hardware: value
    missing: str | None = None
    told: Callable[[], str | None] | None = None
    left_to: Callable[[], str | None] | None = None
    name: str = ""
    area: str = ""

    @property
    def scope(self) -> Scope:
        """Who sees a write: ``"thread"`` where every cell is its thread's own, else ``"process"``."""
        return "thread" if self.cells and all(c.scope == "thread" for c in self.cells) else "process"

    def parse(self, value: object) -> object:
        """The value in its one spelling.

        Raises:
            OptionValueError: the option does not take it.
        """
        return self.values.parse(self.name, value)

    def refusal(self, hardware: Hardware, value: object) -> str | None:
        """Why `value` is left out here, as a sentence, or None."""
        return self.missing or self.why_not(hardware, value)

    def now(self) -> object:
        """The value in force, as torch has it, or None where this torch lacks the state."""
        return self.show(*(c.read() for c in self.cells)) if self.cells else None


@dataclass(slots=True, eq=False)
class Group:
    """One option that stands for several settings at once.

    Attributes:
        help: one sentence.
        values: what it takes.
        members: from a value to the settings it stands for, by name.
        name: the keyword; given by discovery.
        area: the file that declares it; given by discovery.
    """

    help: str
    values: Values
    members: Callable[[Any], Mapping[str, object]]
    name: str = ""
    area: str = ""

    def parse(self, value: object) -> object:
        """The value in its one spelling.

        Raises:
            OptionValueError: the option does not take it.
        """
        return self.values.parse(self.name, value)


def same(raw: Raw) -> object:
    """The value is the raw state itself."""
    return raw


def simple(
    at: Cell | None,
    *,
    help: str,
    values: Values = BOOL,
    why_not: Callable[[Hardware, Any], str | None] = _fine,
    raw: Callable[[Any], Raw] = same,
    show: Callable[[Raw], object] = same,
    missing: str = "this torch build does not have it",
) -> Setting:
    """A setting that is one cell.

    Args:
        at: the cell, or None where this torch has none.
        help: one sentence.
        values: what it takes.
        why_not: why a value has no effect on a machine.
        raw: from a value to raw state.
        show: from raw state to a value.
        missing: the reason given where `at` is None.
    """

    def edits(value: Any, hardware: Hardware) -> tuple[Write, ...]:
        assert at is not None  # a missing setting is refused before it is asked for edits
        return ((at, always(raw(value))),)

    cells = () if at is None else (at,)
    return Setting(help, values, cells, edits, show, why_not, missing=None if at else missing)
