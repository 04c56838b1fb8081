"""What a check finds: one declaration is one check, with its name, what it looks for, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Facts = TypeVar("Facts")
Severity = Literal["problem", "advice"]
Look = Callable[[Facts], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        check: the check that found it.
        severity: ``"problem"`` where something does not work, or not as fast as it does elsewhere, and ``"advice"``
            where something more is to be had.
        what: what is so here, with the evidence, as a sentence.
        fix: what to do, as a sentence with a command or a line of code; may be empty where `what` says it all.
    """

    check: str
    severity: Severity
    what: str
    fix: str

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        return f"{self.what} {self.fix}".rstrip()


@dataclass(frozen=True, slots=True)
class Check(Generic[Facts]):
    """One check: a pure function of facts.

    Attributes:
        name: what it is called.
        severity: of what it finds.
        about: what it looks for, as a sentence.
        look: from the facts to what is so, and what to do.
    """

    name: str
    severity: Severity
    about: str
    look: Look[Facts]

    def __call__(self, facts: Facts) -> Iterator[Finding]:
        """What it finds in these facts."""
        for what, fix in self.look(facts):
            yield Finding(self.name, self.severity, what, fix)


class Checks(Generic[Facts]):
    """The checks of one kind of facts, in the order in which they are declared."""

    def __init__(self) -> None:
        self._all: list[Check[Facts]] = []

    def problem(self, look: Look[Facts]) -> Check[Facts]:
        """Declares a function as a check for problems, under its name and with its docstring."""
        return self._declared(look, "problem")

    def advice(self, look: Look[Facts]) -> Check[Facts]:
        """Declares a function as a check for what may be advised, under its name and with its docstring."""
        return self._declared(look, "advice")

    def _declared(self, look: Look[Facts], severity: Severity) -> Check[Facts]:
        check = Check(look.__name__, severity, (look.__doc__ or "").strip(), look)
        self._all.append(check)
        return check

    def __iter__(self) -> Iterator[Check[Facts]]:
        return iter(self._all)

    def found(self, facts: Facts) -> tuple[Finding, ...]:
        """All there is to find, in the order of the checks."""
        return tuple(finding for check in self for finding in check(facts))
