"""One page of HTML without anything beside it: text, tables and drawings in SVG, light or dark as its reader has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from torchturbo._pictures.charts import Chart
from torchturbo._pictures.svg import drawing

_STYLE = """\
.torchturbo { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; }
.torchturbo h1 { font-size: 1.3em; line-height: 1.3; }
.torchturbo h2 { font-size: 1.05em; margin: 1.8em 0 0.4em; }
.torchturbo p { margin: 0.3em 0; }
.torchturbo .scroll { overflow-x: auto; }
.torchturbo table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.torchturbo th, .torchturbo td { padding: 0.25em 0.9em 0.25em 0; text-align: right; vertical-align: top;
  white-space: nowrap; border-bottom: 1px solid #8884; background: none; color: inherit; }
.torchturbo th:first-child, .torchturbo td:first-child, .torchturbo .words td, .torchturbo .words th {
  text-align: left; white-space: normal; }
.torchturbo .good td { font-weight: 600; }
.torchturbo svg { max-width: 100%; height: auto; display: block; }
.torchturbo svg text { fill: currentColor; font: 13px system-ui, sans-serif; }
.torchturbo .line { stroke: currentColor; stroke-dasharray: 4 3; opacity: 0.7; }
.torchturbo .bound { stroke: currentColor; stroke-width: 1.6; fill: none; }
.torchturbo .dot { fill: currentColor; opacity: 0.3; }
.torchturbo .bar.good { fill: #3b8fd0; }
.torchturbo .bar.bad { fill: #e08214; }
.torchturbo .bar.plain { fill: #9a9a9a; }
"""
_PAGE = """\
:root { color-scheme: light dark; }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; background: #fff; color: #1c1c1c; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e6e6e6; } }
"""


@dataclass(frozen=True, slots=True)
class Paragraphs:
    """Lines of text under a title.

    Attributes:
        title: of them; empty for none.
        lines: a paragraph each.
    """

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A table.

    Attributes:
        title: of it; empty for none.
        columns: their names.
        rows: cells, as many as there are columns.
        good: the rows, by number, that are what one hopes for.
        words: whether cells are texts rather than numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    good: frozenset[int] = frozenset()
    words: bool = False


Part = Paragraphs | Rows | Chart


def facts(title: str, its: Mapping[str, object]) -> Rows:
    """A table of names and what they are.

    Args:
        title: of it.
        its: by name.
    """
    return Rows(title, ("", ""), [(name, str(value)) for name, value in its.items()], words=True)


def lines(title: str, its: Iterable[str]) -> Paragraphs:
    """Lines under a title, which is not shown where there are none.

    Args:
        title: of them.
        its: a paragraph each.
    """
    return Paragraphs(title, tuple(its))


def document(title: str, parts: Sequence[Part]) -> str:
    """A whole page.

    Args:
        title: what stands on top, and what a browser calls it.
        parts: what follows.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/>\n<title>{escape(title)}</title>\n'
        f"<style>\n{_PAGE}{_STYLE}</style>\n</head>\n<body>\n"
        f'<div class="torchturbo">\n<h1>{escape(title)}</h1>\n{_body(parts)}</div>\n</body>\n</html>\n'
    )


def fragment(parts: Sequence[Part]) -> str:
    """What a notebook shows in its own colours.

    Args:
        parts: of the page.
    """
    return f'<div class="torchturbo">\n<style>\n{_STYLE}</style>\n{_body(parts)}</div>\n'


def _body(parts: Sequence[Part]) -> str:
    return "".join(_part(part) for part in parts)


def _part(part: Part) -> str:
    if isinstance(part, Paragraphs):
        if not part.lines:
            return ""
        told = "".join(f"<p>{escape(line)}</p>\n" for line in part.lines)
    elif isinstance(part, Rows):
        if not part.rows:
            return ""
        told = _table(part)
    else:
        told = f"{drawing(part)}\n"
    return (f"<h2>{escape(part.title)}</h2>\n" if part.title else "") + told


def _table(part: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in part.columns)
    top = f"<thead><tr>{head}</tr></thead>\n" if any(part.columns) else ""
    rows = (
        f"<tr{_class('good' if number in part.good else '')}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for number, row in enumerate(part.rows)
    )
    body = "\n".join(rows)
    kind = _class("words" if part.words else "")
    return f'<div class="scroll"><table{kind}>\n{top}<tbody>\n{body}\n</tbody></table></div>\n'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
