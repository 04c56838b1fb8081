"""What a check has found, for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from torchturbo._reproducible import words
from torchturbo._reproducible.data import Reproduction


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was found as rich lays it out, once it knows the width."""

    found: Reproduction

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.found
        yield Text(words.heading(found), style="bold green" if found.identical else "bold red")
        for line in (*words.what(found), words.price(found.price, found.unpriced)):
            yield Text(line)
        for title, lines in (("Advice", found.advice), ("Notes", found.notes)):
            if lines:
                yield Text(f"\n{title}", style="bold")
            for line in lines:
                yield Padding(Text(f"* {line}"), (0, 0, 0, 2))
