"""What a search has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from torchturbo._sheet import indented, notes, table
from torchturbo._tune_loader import words
from torchturbo._tune_loader.data import LoaderTuning

_STYLES = {"chosen": "green", "too large": "magenta", "failed": "red"}


def sheet(found: LoaderTuning, width: int) -> Iterator[RenderableType]:
    """A search from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield Text(words.heading(found), style="bold green")
    for line in words.about(found):
        yield indented(Text(line), 2)
    yield Text("\nTried, in turn", style="bold")
    made = table(*words.COLUMNS, whole=("first batch", "epoch", "memory"))
    for its in found.tried:
        made.add_row(*(Text(cell) for cell in words.cells(its)), style=_STYLES.get(its.outcome))
    yield made
    yield from notes(found.notes)
