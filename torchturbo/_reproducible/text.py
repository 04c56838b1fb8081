"""What a check has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from torchturbo._reproducible import words
from torchturbo._reproducible.data import Reproduction
from torchturbo._sheet import notes


def sheet(found: Reproduction, width: int) -> Iterator[RenderableType]:
    """A check from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield Text(words.heading(found), style="bold green" if found.identical else "bold red")
    for line in (*words.what(found), words.price(found.price, found.unpriced)):
        yield Text(line)
    for title, lines in (("Advice", found.advice), ("Notes", found.notes)):
        yield from notes((f"* {line}" for line in lines), title)
