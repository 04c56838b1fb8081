"""The catalogue with its state here: as JSON, and as rich lays it out in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from torchturbo._catalogue import OPTIONS, Option
from torchturbo._report import words
from torchturbo._report.data import Report, Row
from torchturbo._report.text import STYLES
from torchturbo._sheet import indented
from torchturbo._sources import PREFIX
from torchturbo.cli import _words
from torchturbo.cli._document import by_area, declared_in, held_by, scope, values
from torchturbo.profiles import PROFILES

_WIDE = 120
"""The columns from which on there is room to say who sees an option."""


@dataclass(frozen=True, slots=True)
class Catalogued:
    """Options with their state.

    Attributes:
        report: how they stand.
        names: those that are told in full; empty for all of them in a table.
    """

    report: Report
    names: tuple[str, ...]

    def to_json(self) -> str:
        """These options as JSON; all of them where none is named."""
        told = self.report.to_dict()["options"]
        return json.dumps({name: told[name] | _facts(OPTIONS[name]) for name in self.names or OPTIONS}, indent=2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.names:
            yield from _all(self.report, wide=options.max_width >= _WIDE)
        for name in self.names:
            yield from _one(self.report[name])


def _facts(option: Option) -> dict[str, Any]:
    return {
        "values": list(_words.VALUES[option.name]) or [values(option).replace("`", "")],
        "declared": declared_in(option),
        "environment": _variable(option),
        "profiles": {name: how.replace("`", "") for name, how in held_by(option, OPTIONS, PROFILES)},
    }


def _variable(option: Option) -> str:
    return f"{PREFIX}{option.name.upper()}"


def _all(report: Report, *, wide: bool) -> Iterator[RenderableType]:
    yield Text(
        "Each option, how it stands in a fresh process, and its values. `torchturbo settings NAME` tells more.\n"
    )
    for area, options in by_area(OPTIONS).items():
        yield Text(area, style="bold")
        for option in options:
            line = Table.grid(padding=(0, 2, 0, 0))
            line.add_column(width=max(map(len, OPTIONS)))
            line.add_column(width=8)
            if wide:
                line.add_column(width=7)
            line.add_column()
            seen = [Text(scope(option, OPTIONS))] if wide else []
            short = values(option).replace("`", "").partition(";")[0]
            line.add_row(Text(option.name, style="bold"), _now(report[option.name], note=False), *seen, Text(short))
            yield indented(line, 2)
            yield indented(Text(option.help), 4)
        yield Text()


def _one(row: Row) -> Iterator[RenderableType]:
    option = OPTIONS[row.name]
    example = (_words.VALUES[row.name] or ("4",))[0]
    held = [f"{name} ({how.replace('`', '')})" for name, how in held_by(option, OPTIONS, PROFILES)]
    seen = {"process": "every thread of the process", "thread": "the thread that opens the block"}
    facts = {
        "values": Text(values(option).replace("`", "")),
        "now": _now(row, note=True),
        "seen by": Text(" or ".join(seen[word] for word in scope(option, OPTIONS).split(" and "))),
        "profiles": Text(", ".join(held) or "none holds it"),
        "declared in": Text(declared_in(option)),
        "environment": Text(f"{_variable(option)}={example}"),
        "command line": Text(f"torchturbo run --set {row.name}={example} train.py"),
        "stands for": Text(", ".join(row.members)),
    }
    yield Text(row.name, style="bold")
    yield indented(Text(option.help), 2)
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact.plain:
            lines.add_row(Text(name), fact)
    yield indented(lines, 2)
    yield Text()


def _now(row: Row, *, note: bool) -> Text:
    """The value in force, in the colour of whether it acts; with the reasons where there is room for them."""
    said = Text(words.value(row, row.now), style="" if row.effective else STYLES["no"])
    if note:
        said.append("".join(f"; {sentence}" for sentence in (row.note, row.reason) if sentence))
    return said
