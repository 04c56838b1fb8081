"""What a profile by layers has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from torchturbo._layers import pictures, words
from torchturbo._layers.data import LayerCosts
from torchturbo._pictures.bars import Bars
from torchturbo._sheet import notes, table

_WIDE = 110
"""The columns from which on there is room for every number."""
_OPERATORS = 8


def sheet(found: LayerCosts, width: int, top: int = 15) -> Iterator[RenderableType]:
    """A profile from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
        top: how many layers are shown.
    """
    wide = width >= _WIDE
    yield Text(words.heading(found), style="bold")
    yield Text()
    yield Bars(pictures.shares(found))
    yield Text()
    names = words.LAYERS if wide else words.NARROW
    yield _table(names, words.layers(found, names, top))
    if words.more(found, top):
        yield Text(words.more(found, top))
    yield Text()
    yield _table(words.OPERATORS, words.operators(found, _OPERATORS))
    yield Text()
    for line in words.about(found):
        yield Text(line)
    yield from notes(found.notes)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = table(*names, whole=names[1:], numbers=names[1:])
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made
