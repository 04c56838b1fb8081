"""A plan of memory for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from torchturbo._memory import pictures, words
from torchturbo._memory.data import MemoryPlan
from torchturbo._pictures.bars import Bars
from torchturbo._report.text import table


@dataclass(frozen=True, slots=True)
class Sheet:
    """A plan as rich lays it out, once it knows the width."""

    found: MemoryPlan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.found
        yield Text(words.heading(found), style="bold")
        yield Text()
        made = table(*words.COLUMNS, whole=words.COLUMNS[1:], numbers=words.COLUMNS[1:])
        for row in words.rows(found):
            made.add_row(*map(Text, row))
        yield made
        yield Text()
        for chart in pictures.charts(found):
            yield Bars(chart)
        if words.notes(found):
            yield Text("\nNotes", style="bold")
        for line in words.notes(found):
            yield Padding(Text(line), (0, 0, 0, 2))
