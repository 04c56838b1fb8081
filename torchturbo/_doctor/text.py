"""A diagnosis for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from torchturbo._amounts import some
from torchturbo._doctor import Diagnosis
from torchturbo._report import words
from torchturbo._report.findings import Finding
from torchturbo._report.text import hanging, indented, section

_COLOURS = {"problem": "red", "advice": "magenta"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A diagnosis as rich lays it out, once it knows the width."""

    diagnosis: Diagnosis

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        its = self.diagnosis
        yield from section("", [words.heading(its.report)])
        yield from section("Hardware", words.hardware(its.report))
        yield from _findings("Problems", its.problems)
        yield from _findings("Advice", its.advice)
        yield Text(_counted(its))


def _findings(title: str, findings: Iterable[Finding]) -> Iterator[RenderableType]:
    for number, finding in enumerate(findings, start=1):
        if number == 1:
            yield Text(title, style="bold")
        name = Text.assemble((finding.check.replace("_", " "), _COLOURS[finding.severity]))
        yield indented(name, 2)
        yield indented(Text(finding.what), 4)
        if finding.fix:
            yield indented(hanging(f"-> {finding.fix}"), 4)
        yield Text()


def _counted(diagnosis: Diagnosis) -> str:
    problems, advice = len(diagnosis.problems), len(diagnosis.advice)
    found = some(problems, "problem") if problems else "no problems"
    also = f", {some(advice, 'piece')} of advice" if advice else ""
    return f"{len(diagnosis.checks)} checks: {found}{also}."
