"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from torchturbo._pictures.bars import Bars
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
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    tried = words.told_in_the_table(found)
    longest = max((len(words.change(its.change)) for its in tried), default=0)
    for name in words.COLUMNS:
        least = min(longest, _CHANGE) if name == "change" else None
        table.add_column(name, no_wrap=name in ("speed-up", "drift"), overflow="fold", min_width=least)
    for its in tried:
        table.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
    return table
