"""A plan of memory for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from torchturbo._memory import pictures, words
from torchturbo._memory.data import MemoryPlan
from torchturbo._pictures.bars import Bars
from torchturbo._sheet import notes, table


def sheet(found: MemoryPlan, width: int) -> Iterator[RenderableType]:
    """A plan from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield Text(words.heading(found), style="bold")
    yield Text()
    made = table(*words.COLUMNS, whole=words.COLUMNS[1:], numbers=words.COLUMNS[1:])
    for row in words.rows(found):
        made.add_row(*map(Text, row))
    yield made
    yield Text()
    for chart in pictures.charts(found):
        yield Bars(chart)
    yield from notes(words.notes(found))
