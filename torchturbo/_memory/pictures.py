"""What there is to see of a plan of memory: the peak under each switch, and the page that has it."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._memory import words
from torchturbo._memory.data import MemoryPlan
from torchturbo._pictures.charts import Bar, Chart
from torchturbo._pictures.page import Part, Rows, lines
from torchturbo._words import size


def charts(found: MemoryPlan) -> list[Chart]:
    """All that there is to see."""
    now = found.rows[0].peak
    bars = (
        Bar(row.name, row.peak / 1024**2, size(row.peak), look="good" if row.peak < now else "plain")
        for row in found.rows
        if row.refused is None
    )
    return [Chart("The most at once in a step, MiB", tuple(bars))]


def page(found: MemoryPlan) -> Iterator[Part]:
    """What a page says, from its heading on."""
    yield from charts(found)
    yield Rows("What takes it", words.COLUMNS, tuple(words.rows(found)))
    yield lines("Notes", words.notes(found))
