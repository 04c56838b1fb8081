"""What there is to see of a search: what each change bought, how far it drifts, and the page that has both."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from torchturbo._benchmark.data import Between
from torchturbo._benchmark.words import drift, speedup
from torchturbo._pictures.charts import Bar, Chart, Look
from torchturbo._pictures.page import Part, Rows, facts, lines
from torchturbo._tune import words
from torchturbo._tune.data import Tuning
from torchturbo._words import arguments

_LOOKS: dict[str, Look] = {"kept": "good", "drifts": "bad", "failed": "bad"}
_BEST = "the best so far"


def charts(found: Tuning) -> list[Chart]:
    """All that there is to see."""
    return [chart for chart in (speedups(found), drifts(found)) if chart is not None]


def speedups(found: Tuning) -> Chart | None:
    """What each change bought on top of the best so far, and all that were kept together; None where none was timed."""
    bars = []
    for its in found.tried:
        if its.speedup is not None:
            bars.append(_bar(arguments(its.change), its.speedup, _look(its.outcome)))
    if found.speedup is not None:
        bars.append(_bar("all that were kept", found.speedup, "good"))
    return Chart("Speed-up of each change, on top of the best so far", tuple(bars), ((1.0, _BEST),)) if bars else None


def _bar(label: str, its: Between, look: Look) -> Bar:
    return Bar(label, its.value, speedup(its, None), its.low, its.high, (), look)


def drifts(found: Tuning) -> Chart | None:
    """How far what was tried is from the reference; None where nothing was compared."""
    bars = tuple(
        Bar(arguments(its.change), far if isfinite(far) else 0.0, drift(its.drift), look=_look(its.outcome))
        for its in found.tried
        if its.drift is not None and (far := its.drift.largest) is not None
    )
    if not any(bar.value for bar in bars):
        return None
    noise = found.noise.largest if found.noise is not None else None
    marks = [(found.tolerance, f"tolerance {found.tolerance:g}")] if found.tolerance else []
    marks += [(noise, "noise: the reference beside itself")] if noise else []
    return Chart(f"Drift from {found.reference}", bars, tuple(marks), log=True)


def _look(outcome: str) -> Look:
    return _LOOKS.get(outcome, "plain")


def page(found: Tuning) -> Iterator[Part]:
    """What a page says, from its heading on."""
    yield lines("", words.about(found))
    tried = words.told_in_the_table(found)
    good = frozenset(number for number, its in enumerate(tried) if its.outcome == "kept")
    rows = [words.cells(its) for its in tried]
    yield Rows("Tried, each on top of the best so far", words.COLUMNS, rows, good, words=True)
    yield from charts(found)
    yield lines("Notes", (*words.without_effect(found), *found.notes))
    its = found.hardware
    on = {"machine": its.name, "torch": found.torch, "Python": its.build.python, "platform": its.build.platform}
    yield facts("Measured on", on | {"date": found.date})
