"""What there is to see of a benchmark: speed-ups, drift, memory, and the page that has them."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from torchturbo._benchmark import words
from torchturbo._benchmark.data import Comparison, Timed
from torchturbo._pictures.charts import Bar, Chart, Look
from torchturbo._pictures.page import Part, Rows, facts, lines
from torchturbo._words import arguments, size

_LOOKS: dict[str, Look] = {"faster": "good", "slower": "bad"}


def speedups(found: Comparison) -> Chart:
    """The speed-up of each row, with its samples: the time of each round of the baseline by this one's."""
    base = found.rows[0]
    return Chart("Speed-up", tuple(_speedup(row, base) for row in found.rows), ((1.0, base.name),))


def _speedup(row: Timed, base: Timed) -> Bar:
    if row.failed or (row.speedup is None and row is not base):
        return Bar(row.name, 0.0, "failed" if row.failed else "not measured")
    if row.speedup is None:
        return Bar(row.name, 1.0, "1")
    its = row.speedup
    dots = (
        tuple(one / other for one, other in zip(base.samples, row.samples, strict=True))
        if len(base.samples) == len(row.samples)
        else ()  # nobody knows which rounds are missing
    )
    told = words.speedup(its, row.verdict)
    return Bar(
        words.cell(row, "settings"), its.value, told, its.low, its.high, dots, _LOOKS.get(row.verdict or "", "plain")
    )


def drifts(found: Comparison) -> Chart | None:
    """How far the numbers of each row are from the reference's; None where nothing was compared."""
    known = [(row, row.drift.largest) for row in found.rows if row.drift is not None and row.drift.largest is not None]
    bars = tuple(Bar(row.name, its if isfinite(its) else 0.0, words.drift(row.drift)) for row, its in known)
    noise = found.noise.largest if found.noise is not None else None
    marks = ((noise, "noise: the reference beside itself"),) if noise else ()
    shown = marks or any(bar.value for bar in bars)
    return Chart(f"Drift from {found.reference}", bars, marks, log=True) if bars and shown else None


def memories(found: Comparison) -> Chart | None:
    """What a step of each row has at once at its peak; None where nobody knows."""
    known = [(row.name, row.memory) for row in found.rows if row.memory is not None]
    if not known:
        return None
    return Chart("Memory at its peak, MiB", tuple(Bar(name, its / 1024**2, size(its)) for name, its in known))


def charts(found: Comparison) -> list[Chart]:
    """All that there is to see."""
    return [chart for chart in (speedups(found), drifts(found), memories(found)) if chart is not None]


def page(found: Comparison) -> Iterator[Part]:
    """What a page says, from its heading on."""
    names = words.columns(found)
    good = frozenset(number for number, row in enumerate(found.rows) if row.verdict == "faster")
    yield Rows("", names, [words.cells(row, names) for row in found.rows], good)
    yield from charts(found)
    if found.switches:
        cells = [words.switch(each) for each in found.switches]
        yield Rows("One option at a time", words.SWITCHES, cells)
    yield lines("What the numbers are", words.about(found))
    yield lines("Notes", (*words.reasons(found), *found.notes))
    yield facts("Settings", {row.name: arguments(row.settings) or "nothing is set" for row in found.rows})
    yield facts("Measured on", words.surroundings(found))
