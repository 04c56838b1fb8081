"""What a benchmark has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from torchturbo._benchmark import pictures, words
from torchturbo._benchmark.data import Comparison, Timed
from torchturbo._pictures.bars import Bars
from torchturbo._sheet import notes, table

_STYLES = {"faster": "green", "slower": "yellow"}


def sheet(found: Comparison, width: int) -> Iterator[RenderableType]:
    """A benchmark from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield Text(words.heading(found), style="bold")
    yield _table(found, width)
    yield Text()
    yield Bars(pictures.speedups(found))
    yield Text()
    if found.switches:
        yield Text("One option at a time", style="bold")
        yield _switches(found)
        yield Text()
    for line in words.about(found):
        yield Text(line)
    yield from notes((*words.reasons(found), *found.notes))


def _table(found: Comparison, width: int) -> Table:
    columns = words.columns(found, width)
    made = table(*columns, whole=columns[1:], numbers=columns[1:])
    for row in found.rows:
        cells = words.cells(row, columns)
        made.add_row(*(Text(cell) for cell in cells), style=_style(row))
    return made


def _style(row: Timed) -> str | None:
    return "red" if row.failed else _STYLES.get(row.verdict or "")


def _switches(found: Comparison) -> Table:
    made = table(*words.SWITCHES, numbers=words.SWITCHES[1:])
    for each in found.switches:
        made.add_row(*(Text(cell) for cell in words.switch(each)))
    return made
