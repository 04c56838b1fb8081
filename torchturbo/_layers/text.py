"""What a profile by layers has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from torchturbo._layers import pictures, words
from torchturbo._layers.data import LayerCosts
from torchturbo._pictures.bars import Bars
from torchturbo._report.text import table

_WIDE = 110
"""The columns from which on there is room for every number."""
_OPERATORS = 8


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was found as rich lays it out, once it knows the width.

    Attributes:
        found: all of it.
        top: how many layers are shown.
    """

    found: LayerCosts
    top: int = 15

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found, wide = self.found, options.max_width >= _WIDE
        yield Text(words.heading(found), style="bold")
        yield Text()
        yield Bars(pictures.shares(found))
        yield Text()
        names = words.LAYERS if wide else words.NARROW
        yield _table(names, words.layers(found, names, self.top))
        if words.more(found, self.top):
            yield Text(words.more(found, self.top))
        yield Text()
        yield _table(words.OPERATORS, words.operators(found, _OPERATORS))
        yield Text()
        for line in words.about(found):
            yield Text(line)
        if found.notes:
            yield Text("\nNotes", style="bold")
        for line in found.notes:
            yield Padding(Text(line), (0, 0, 0, 2))


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = table(*names, whole=names[1:], numbers=names[1:])
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made
