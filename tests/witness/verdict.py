"""Judges one case: forks its children from the pristine parent and compares what they read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.witness.cases import Case
from tests.witness.children import in_child
from tests.witness.expectation import Values, forced_by, unkept_promises
from tests.witness.getters import Reading
from tests.witness.mutants import Block
from tests.witness.player import Outcome, Player
from tests.witness.reading import Witness, differences
from tests.witness.setters import Table
from tests.witness.subjects import Subject


@dataclass(frozen=True)
class Verdict:
    """What was wrong with a case: what blocks left behind, and what was wrong while they were open."""

    left_behind: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    entered: int = 0
    refused: int = 0

    @property
    def complaints(self) -> tuple[str, ...]:
        """Everything that was wrong."""
        return self.left_behind + self.inside


def judge(case: Case, subject: Subject, witness: Witness, setters: Table) -> Verdict:
    """Play a case with and without its blocks, and say what differs afterwards and what was wrong on the way."""
    alone = in_child(lambda: _alone(case, subject))
    if alone.crash:
        return Verdict((f"each layer alone: {alone.crash}",))
    forced, promises = alone.value
    without = in_child(lambda: Player(case, witness, setters, None, forced).play())
    if without.crash:
        return Verdict((f"without blocks: {without.crash}",))
    played = in_child(lambda: Player(case, witness, setters, subject, forced).play())
    if played.crash:
        return Verdict((f"with blocks: {played.crash}",))
    expected: Outcome = without.value
    found: Outcome = played.value
    if any(step.kind == "compile" for step in case.blocks):
        _allow_what_compiling_leaves(case, witness, setters, expected.reading, found.reading)
    left_behind = differences(expected.reading, found.reading)
    return Verdict(tuple(left_behind), tuple(promises + found.problems), found.entered, found.refused)


def _allow_what_compiling_leaves(
    case: Case, witness: Witness, setters: Table, expected: Reading, found: Reading
) -> None:
    """Let the compiler's configuration be what compiling leaves in it without any block, besides what it was.

    Torch 2.8 leaves warning filters behind too.
    """
    idle = Subject("idle", Block, None, None, ())
    compiled = in_child(lambda: Player(case, witness, setters, idle, [{}] * len(case.layers)).play())
    if compiled.crash:
        raise RuntimeError(compiled.crash)
    for name in found.keys() | expected.keys():
        if (".config." in name or name == "warnings.filters") and found.get(name) == compiled.value.reading.get(name):
            expected.pop(name, None)
            found.pop(name, None)


def _alone(case: Case, subject: Subject) -> tuple[list[Values | None], list[str]]:
    """What each layer forces by itself, and which options do not do what they say."""
    forced = [forced_by(layer, subject) for layer in case.layers]
    if not subject.heeds_options:
        return forced, []
    pairs = zip(case.layers, forced, strict=True)
    return forced, [line for layer, values in pairs if values is not None for line in unkept_promises(layer, values)]


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The case with everything left out that it fails without: halves first, then single steps, then options."""
    for part in ("blocks", "history"):
        size = max(1, len(getattr(case, part)) // 2)
        while size:
            at = 0
            while at < len(getattr(case, part)):
                smaller = case.without(part, at, size)
                if fails(smaller):
                    case = smaller
                else:
                    at += size
            size //= 2
    for at, layer in enumerate(case.layers):
        for option in list(layer.options):
            options = {name: value for name, value in case.layers[at].options.items() if name != option}
            layers = list(case.layers)
            layers[at] = replace(case.layers[at], options=options)
            smaller = replace(case, layers=tuple(layers))
            if fails(smaller):
                case = smaller
    return case
