"""A report for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from torchturbo._report import words
from torchturbo._report.data import Report
from torchturbo._sheet import section, table

STYLES = {"yes": "green", "part": "magenta", "no": "magenta"}
"""The colours of what acts: the terminal's own, and no yellow, which a white ground swallows."""
_WIDE = 96
"""The columns from which on the whole origin of a value fits on its line."""


def sheet(report: Report, width: int) -> Iterator[RenderableType]:
    """A report from its heading on.

    Args:
        report: what is told.
        width: columns that there are.
    """
    numbers = words.footnotes(report)
    notes = (f"({number}) {sentence}" for sentence, number in numbers.items())
    yield from section("", [words.heading(report)])
    yield from section("Open blocks, oldest first" if report.blocks else "", words.blocks(report))
    yield _table(report, numbers, wide=width >= _WIDE)
    yield Text()
    yield from section("", notes)
    yield from section("Hardware", words.hardware(report))
    yield from section("Environment", words.environment(report))
    yield from section("Compiled", words.compiled(report))
    yield from section("Advice", (f"* {sentence}" for sentence in report.advice))


def _table(report: Report, numbers: dict[str, int], *, wide: bool) -> Table:
    made = table(*words.COLUMNS, whole=("option", "scope", "acts"))
    for row in report.rows:
        cells = [Text(cell) for cell in words.cells(row, numbers, wide=wide)]
        cells[-1].stylize(STYLES[cells[-1].plain.partition(" ")[0]])
        made.add_row(*cells, style="bold" if row.wanted and row.effective else None)
    return made
