"""A report for a notebook: plain HTML, in the colours and the fonts of the page it stands in."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from torchturbo._report import words
from torchturbo._report.data import Report, Row


def page(report: Report) -> str:
    """A report as one element of HTML."""
    numbers = words.footnotes(report)
    parts = (
        f"<p>{escape(words.heading(report))}</p>",
        _list("Open blocks, oldest first" if report.blocks else "", words.blocks(report)),
        _table(report, numbers),
        _list("", (f"({number}) {sentence}" for sentence, number in numbers.items())),
        _list("Hardware", words.hardware(report)),
        _list("Environment", words.environment(report)),
        _list("Compiled", words.compiled(report)),
        _list("Advice", report.advice),
    )
    return f'<div class="torchturbo-report">{"".join(parts)}</div>'


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<div>{escape(line.strip())}</div>" for line in lines)
    if not items:
        return ""
    return f"<p>{f'<b>{escape(title)}</b>' if title else ''}</p>{items}"


def _table(report: Report, numbers: dict[str, int]) -> str:
    head = "".join(_cell("th", name) for name in words.COLUMNS)
    body = "".join(f"<tr>{_row(row, numbers)}</tr>" for row in report.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: Row, numbers: dict[str, int]) -> str:
    option, *cells = words.cells(row, numbers, wide=True)
    head = f'<th scope="row" style="text-align:left" title="{escape(row.help)}">{escape(option)}</th>'
    return head + "".join(_cell("td", cell) for cell in cells)


def _cell(tag: str, text: str) -> str:
    return f'<{tag} style="text-align:left">{escape(text)}</{tag}>'
