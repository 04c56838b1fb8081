"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from torchturbo._pictures.bars import Bars
from torchturbo._sheet import indented, notes, table
from torchturbo._tune import pictures, words
from torchturbo._tune.data import Tuning
from torchturbo._words import arguments

_STYLES = {"kept": "green", "drifts": "yellow", "failed": "red"}
_CHANGE = 30
"""Columns that a change gets before it is folded."""


def sheet(found: Tuning, width: int) -> Iterator[RenderableType]:
    """A search from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield Text(words.heading(found), style="bold green" if found.options else "bold")
    for line in words.about(found):
        yield indented(Text(line), 2)
    yield Text("\nTried, each on top of the best so far", style="bold")
    yield _table(found)
    chart = pictures.speedups(found)
    if chart is not None:
        yield Text()
        yield Bars(chart)
    yield from notes((*words.without_effect(found), *found.notes))


def _table(found: Tuning) -> Table:
    tried = words.told_in_the_table(found)
    longest = max((len(arguments(its.change)) for its in tried), default=0)
    made = table(*words.COLUMNS, whole=("speed-up", "drift"))
    made.columns[0].min_width = min(longest, _CHANGE)
    for its in tried:
        made.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
    return made
