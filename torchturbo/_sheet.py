"""What is found, laid out for a terminal by rich, which is imported with this module only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_MARK = re.compile(r"\d+\.|\(\d+\)|\*|->|[+-]")
"""What a line of a list begins with."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is laid out once rich knows the width.

    Attributes:
        lay: gives what stands on it, from the top, for a width in columns.
    """

    lay: Callable[[int], Iterable[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lay(options.max_width)


def section(title: str, lines: Iterable[str]) -> Iterator[RenderableType]:
    """Lines under a title, with an empty one after them; nothing where there are none.

    Args:
        title: in bold; empty for lines that need none, which then begin at the margin.
        lines: each of them a line, with what does not fit under its words.
    """
    lines = tuple(lines)
    if lines and title:
        yield Text(title, style="bold")
    for line in lines:
        text = line.lstrip()
        left = len(line) - len(text) + (2 if title else 0)
        yield indented(hanging(text), left)
    if lines:
        yield Text()


def indented(told: RenderableType, by: int) -> RenderableType:
    """The same, further to the right."""
    return Padding(told, (0, 0, 0, by), expand=False) if by else told


def hanging(text: str) -> RenderableType:
    """A line of which what does not fit stands under its words, clear of the mark that the line may begin with."""
    mark, _, rest = text.partition(" ")
    if not _MARK.fullmatch(mark):
        return Text(text)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), Text(rest))
    return grid


def table(*columns: str, whole: Iterable[str] = (), numbers: Iterable[str] = ()) -> Table:
    """An empty table, with a line under its head and none around it.

    Args:
        *columns: their names.
        whole: those of them in which no line is broken.
        numbers: those of them that stand on the right.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        made.add_column(name, justify=justify, no_wrap=name in whole, overflow="fold")
    return made


def notes(lines: Iterable[str], title: str = "Notes") -> Iterator[RenderableType]:
    """Lines under a title, with an empty one before it; nothing where there are none.

    Args:
        lines: each of them a line.
        title: in bold.
    """
    lines = tuple(lines)
    if lines:
        yield Text(f"\n{title}", style="bold")
    yield from (indented(Text(line), 2) for line in lines)
