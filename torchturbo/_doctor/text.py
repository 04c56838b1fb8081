"""A diagnosis for a terminal, laid out by rich, which is imported with this module only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.text import Text

from torchturbo._doctor.data import Diagnosis
from torchturbo._report import words
from torchturbo._report.findings import Finding
from torchturbo._sheet import hanging, indented, section
from torchturbo._words import some

_COLOURS = {"problem": "red", "advice": "magenta"}


def sheet(found: Diagnosis, width: int) -> Iterator[RenderableType]:
    """A diagnosis from its heading on.

    Args:
        found: what is told.
        width: columns that there are.
    """
    yield from section("", [words.heading(found.report)])
    yield from section("Hardware", words.hardware(found.report))
    yield from _findings("Problems", found.problems)
    yield from _findings("Advice", found.advice)
    yield Text(_counted(found))


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
