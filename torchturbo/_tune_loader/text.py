"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from torchturbo._report.text import table
from torchturbo._tune_loader import words
from torchturbo._tune_loader.data import LoaderTuning

_STYLES = {"chosen": "green", "too large": "magenta", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was found as rich lays it out, once it knows the width."""

    found: LoaderTuning

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.found
        yield Text(words.heading(found), style="bold green")
        for line in words.about(found):
            yield Padding(Text(line), (0, 0, 0, 2))
        yield Text("\nTried, in turn", style="bold")
        made = table(*words.COLUMNS, whole=("first batch", "epoch", "memory"))
        for its in found.tried:
            made.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
        yield made
        if found.notes:
            yield Text("\nNotes", style="bold")
        for line in found.notes:
            yield Padding(Text(line), (0, 0, 0, 2))
