"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from torchturbo._pictures.bars import Bars
from torchturbo._report.text import table
from torchturbo._tune import pictures, words
from torchturbo._tune.data import Tuning

_STYLES = {"kept": "green", "drifts": "yellow", "failed": "red"}
_CHANGE = 30
"""Columns that a change gets before it is folded."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was found as rich lays it out, once it knows the width."""

    found: Tuning

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.found
        yield Text(words.heading(found), style="bold green" if found.options else "bold")
        for line in words.about(found):
            yield Padding(Text(line), (0, 0, 0, 2))
        yield Text("\nTried, each on top of the best so far", style="bold")
        yield _table(found)
        chart = pictures.speedups(found)
        if chart is not None:
            yield Text()
            yield Bars(chart)
        notes = (*words.without_effect(found), *found.notes)
        if notes:
            yield Text("\nNotes", style="bold")
        for line in notes:
            yield Padding(Text(line), (0, 0, 0, 2))


def _table(found: Tuning) -> Table:
    tried = words.told_in_the_table(found)
    longest = max((len(words.change(its.change)) for its in tried), default=0)
    made = table(*words.COLUMNS, whole=("speed-up", "drift"))
    made.columns[0].min_width = min(longest, _CHANGE)
    for its in tried:
        made.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
    return made
