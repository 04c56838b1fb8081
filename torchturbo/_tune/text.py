"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from torchturbo._tune import words
from torchturbo._tune.data import Tuning

_STYLES = {"kept": "green", "drifts": "yellow", "failed": "red"}


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
        for line in found.notes:
            yield Text(line)


def _table(found: Tuning) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in words.COLUMNS:
        table.add_column(name, no_wrap=name in ("speed-up", "drift"), overflow="fold")
    for its in found.tried:
        table.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
    return table
