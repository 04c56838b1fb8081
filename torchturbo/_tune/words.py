"""The words of a search, without their layout."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._benchmark.words import drift, speedup
from torchturbo._tune.data import Tried, Tuning
from torchturbo._words import arguments, milliseconds

COLUMNS = ("change", "speed-up", "drift", "outcome")


def heading(found: Tuning) -> str:
    """What came out."""
    if found.speedup is None:
        return f"Nothing that was tried is surely faster than {found.step} as it is ({milliseconds(found.before)} ms)."
    return f"{found.step} is {found.speedup.value:.2f} times as fast with {arguments(found.options)}."


def about(found: Tuning) -> Iterator[str]:
    """What there is to know of it."""
    if found.speedup is not None:
        yield (
            f"{milliseconds(found.before)} ms a step as it is, {milliseconds(found.after)} ms with these; speed-up "
            f"surely between {found.speedup.low:.2f} and {found.speedup.high:.2f}, {found.rounds} rounds in turn"
        )
    if found.drift is not None:
        noise = found.noise.largest if found.noise is not None else None
        beside = (
            "" if noise is None else f"; the reference is {noise:.1e} from itself when its sums are in another order"
        )
        yield f"drift from {found.reference}: {drift(found.drift)}, tolerance {found.tolerance:g}{beside}"
    yield f"{found.seconds:.0f} s of {found.budget:.0f} s, on {found.hardware.name}, torch {found.torch}"
    if found.interrupted:
        yield "interrupted: this is the best so far"


def told_in_the_table(found: Tuning) -> list[Tried]:
    """What was tried and came to something; what has no effect here has no numbers."""
    return [its for its in found.tried if its.outcome != "no effect" or not its.why]


def without_effect(found: Tuning) -> Iterator[str]:
    """What has no effect here: each reason once, with all changes that it is true of."""
    changes: dict[str, list[str]] = {}
    for its in found.tried:
        if its.outcome == "no effect" and its.why:
            changes.setdefault(its.why, []).append(arguments(its.change))
    yield from (f"no effect here: {'; '.join(each)}: {why}" for why, each in changes.items())


def cells(its: Tried) -> tuple[str, str, str, str]:
    """One row of the table."""
    # Of a few rounds nobody can say more than that.
    faster = "" if its.speedup is None else speedup(its.speedup, None)
    return arguments(its.change), faster, drift(its.drift), f"{its.outcome}: {its.why}" if its.why else its.outcome
