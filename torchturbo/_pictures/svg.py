"""A chart as a drawing in SVG, which takes its colours from the page that it stands in."""

from __future__ import annotations

import math
from html import escape

from torchturbo._pictures.charts import Bar, Chart

_WIDTH, _LABELS, _TEXTS = 900, 250, 190
_ROW, _TOP, _BOTTOM = 26, 6, 22
_LONGEST = 36
"""Signs of a label that there is room for."""
_DOTS = 120
"""Dots that are drawn of one bar: more of them show nothing more."""


def drawing(chart: Chart) -> str:
    """A chart as one element.

    Args:
        chart: what is to be seen.
    """
    height = _TOP + _ROW * len(chart.bars) + (_BOTTOM * len(chart.lines) or 4)
    told = [f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" aria-label="{escape(chart.title)}">']
    bottom = _TOP + _ROW * len(chart.bars)
    for number, (value, what) in enumerate(chart.lines):
        x, low = _place(chart, value), bottom + _BOTTOM * number
        told.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{low + 6}"/>')
        side = 'text-anchor="end" dx="-5"' if x > _WIDTH * 0.6 else 'dx="5"'
        told.append(f'<text x="{x:.1f}" y="{low + 16}" {side}>{escape(what)}</text>')
    for number, bar in enumerate(chart.bars):
        told += _bar(chart, bar, _TOP + _ROW * number)
    return "\n".join([*told, "</svg>"])


def _place(chart: Chart, value: float) -> float:
    low, high = chart.span
    room = _WIDTH - _LABELS - _TEXTS
    share = (math.log(value / low) / math.log(high / low)) if chart.log and value > 0 else (value - low) / (high - low)
    return _LABELS + room * min(max(share, 0.0), 1.0)


def _bar(chart: Chart, bar: Bar, top: float) -> list[str]:
    middle, begin, end = top + _ROW / 2, _place(chart, chart.span[0]), _place(chart, bar.value)
    label = bar.label if len(bar.label) <= _LONGEST else bar.label[: _LONGEST - 1] + "…"
    told = [
        f'<text x="{_LABELS - 10}" y="{middle + 4.5}" text-anchor="end">{escape(label)}'
        f"<title>{escape(bar.label)}: {escape(bar.text)}</title></text>"
    ]
    if chart.log and bar.value > 0:
        told.append(f'<circle class="bar {bar.look}" cx="{end:.1f}" cy="{middle}" r="5.5"/>')
    elif not chart.log and bar.value > 0:
        told.append(
            f'<rect class="bar {bar.look}" x="{begin:.1f}" y="{top + 5}" width="{max(end - begin, 0.5):.1f}" '
            f'height="{_ROW - 10}" rx="2"/>'
        )
    every = max(1, math.ceil(len(bar.dots) / _DOTS))
    for number, dot in enumerate(bar.dots[::every]):
        if chart.span[0] <= dot <= chart.span[1]:
            y = middle - 5 + 10 * (number * 7 % 11) / 10
            told.append(f'<circle class="dot" cx="{_place(chart, dot):.1f}" cy="{y:.1f}" r="1.8"/>')
    if bar.low is not None and bar.high is not None:
        left, right = _place(chart, bar.low), _place(chart, bar.high)
        ends = f"M{left:.1f} {middle - 4}v8M{right:.1f} {middle - 4}v8"
        told.append(f'<path class="bound" d="{ends}M{left:.1f} {middle}H{right:.1f}"/>')
    told.append(f'<text x="{_WIDTH - _TEXTS + 10}" y="{middle + 4.5}">{escape(bar.text)}</text>')
    return told
