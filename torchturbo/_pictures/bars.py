"""Charts in a terminal: bars of blocks, or of signs that every terminal has. Without colours they say the same."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from torchturbo._pictures.charts import Bar, Chart

_STYLES = {"good": "green", "bad": "yellow", "plain": ""}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEAST = 10
"""Columns below which a bar shows nothing."""
_MOST = 100


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart as rich lays it out, once it knows the width.

    Attributes:
        chart: with a linear scale.
    """

    chart: Chart

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        chart, ascii_only = self.chart, options.ascii_only or options.legacy_windows
        texts = max((len(bar.text) for bar in chart.bars), default=0)
        labels = max((len(bar.label) for bar in chart.bars), default=0)
        labels = min(labels, max(8, options.max_width // 3))
        room = min(_MOST, options.max_width - labels - texts - 4)
        if room < _LEAST or not chart.bars:
            return
        yield Text(chart.title, style="bold")
        for bar in chart.bars:
            line = Text("  " + _cut(bar.label, labels, ascii_only), end="", no_wrap=True)
            line.append(" ")
            line.append(drawn(bar, chart, room, ascii_only=ascii_only), style=_STYLES[bar.look])
            line.append(f" {bar.text}")
            line.end = "\n"
            line.rstrip()
            yield line
        legend = _legend(chart, ascii_only)
        if legend:
            yield Text(f"  {legend}", style="dim")


def drawn(bar: Bar, chart: Chart, width: int, *, ascii_only: bool) -> str:
    """A bar: solid up to its lower bound, light up to its upper one.

    Args:
        bar: the bar.
        chart: which it is in, for the scale.
        width: columns that the longest may take.
        ascii_only: whether blocks cannot be written.
    """
    solid, light, line, eighths = ("#", "-", "|", "") if ascii_only else ("█", "░", "│", _EIGHTHS)
    scale = width / chart.span[1]
    low = min(max(bar.value if bar.low is None else bar.low, 0.0) * scale, width)
    high = min(max(bar.value if bar.high is None else bar.high, 0.0) * scale, width)
    cells = [solid] * int(low)
    rest = low - int(low)
    if eighths and rest >= 1 / 8 and len(cells) < width:
        cells.append(eighths[int(rest * 8)])
    elif not eighths and rest >= 0.5 and len(cells) < width:
        cells.append(solid)
    cells += [light] * (round(high) - len(cells))
    if not cells and bar.value > 0:
        cells.append(eighths[1] if eighths else "|")  # something is not nothing
    cells += [" "] * (width - len(cells))
    for value, _ in chart.lines:
        place = min(width - 1, int(value * scale))
        if cells[place] == " ":
            cells[place] = line
    return "".join(cells)


def _legend(chart: Chart, ascii_only: bool) -> str:
    solid, light, line = ("#", "-", "|") if ascii_only else ("█", "░", "│")
    told = []
    if any(bar.low is not None for bar in chart.bars):
        told += [f"{solid} surely", f"{light} perhaps"]
    told += [f"{line} {what}" for _, what in chart.lines]
    return "   ".join(told)


def _cut(label: str, width: int, ascii_only: bool) -> str:
    more = "..." if ascii_only else "…"
    return (label if len(label) <= width else label[: width - len(more)] + more).ljust(width)
