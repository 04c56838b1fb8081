"""A report for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from torchturbo._report import words
from torchturbo._report.data import Report

_STYLES = {"yes": "green", "part": "yellow", "no": "yellow"}
_MARK = re.compile(r"\d+\.|\(\d+\)|\*")
"""What a line of a list begins with."""
_WIDE = 96
"""The columns from which on the whole origin of a value fits on its line."""


def show(report: Report) -> None:
    """Prints a report to where Python prints now, in the width and the colours that are to be had there."""
    console = Console()
    if console.encoding.lower().startswith("utf"):
        console.print(report)
        return
    # A path or a name that this terminal cannot write must not raise in the middle of somebody's training.
    with console.capture() as captured:
        console.print(report)
    console.file.write(captured.get().encode(console.encoding, "backslashreplace").decode(console.encoding))


def plain(told: RenderableType, width: int) -> str:
    """What rich can lay out, as text without colours, in lines of at most `width` columns."""
    console = Console(file=StringIO(), width=width, color_system=None, force_jupyter=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(told)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


@dataclass(frozen=True, slots=True)
class Sheet:
    """A report as rich lays it out, once it knows the width."""

    report: Report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report, numbers = self.report, words.footnotes(self.report)
        notes = (f"({number}) {sentence}" for sentence, number in numbers.items())
        yield from _section("", [words.heading(report)])
        yield from _section("Open blocks, oldest first" if report.blocks else "", words.blocks(report))
        yield _table(report, numbers, wide=options.max_width >= _WIDE)
        yield Text()
        yield from _section("", notes)
        yield from _section("Hardware", words.hardware(report))
        yield from _section("Environment", words.environment(report))
        yield from _section("Compiled", words.compiled(report))
        yield from _section("Advice", (f"* {sentence}" for sentence in report.advice))


def _section(title: str, lines: Iterable[str]) -> Iterator[RenderableType]:
    lines = tuple(lines)
    if lines and title:
        yield Text(title, style="bold")
    for line in lines:
        text = line.lstrip()
        left = len(line) - len(text) + (2 if title else 0)
        yield Padding(_hanging(text), (0, 0, 0, left), expand=False) if left else _hanging(text)
    if lines:
        yield Text()


def _hanging(text: str) -> RenderableType:
    """A line of which what does not fit stands under its words, clear of the mark that the line may begin with."""
    mark, _, rest = text.partition(" ")
    if not _MARK.fullmatch(mark):
        return Text(text)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), Text(rest))
    return grid


def _table(report: Report, numbers: dict[str, int], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in words.COLUMNS:
        table.add_column(name, no_wrap=name in ("option", "scope", "acts"), overflow="fold")
    for row in report.rows:
        cells = [Text(cell) for cell in words.cells(row, numbers, wide=wide)]
        cells[-1].stylize(_STYLES[cells[-1].plain.partition(" ")[0]])
        table.add_row(*cells, style="bold" if row.wanted and row.effective else None)
    return table
