"""Charts by matplotlib, which is imported when it is needed: no window system is asked for, and no state is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchturbo._pictures.charts import Bar, Chart
from torchturbo.errors import MissingPackageError, OptionValueError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by people who see colours differently, and in grey (Okabe and Ito).
_COLOURS = {"good": "#0072b2", "bad": "#e69f00", "plain": "#999999"}
_INK = "#222222"
_LONGEST = 34
_DOTS = 200


def refuse(path: str | Path) -> None:
    """Raises where nothing can be drawn into a file, for those who would rather know before they measure.

    Args:
        path: the file.

    Raises:
        MissingPackageError: matplotlib is not installed; says what to type.
        OptionValueError: the file's ending names no format.
    """
    try:
        import matplotlib.backend_bases
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingPackageError(
            'pictures in files are drawn by matplotlib, which is not installed: pip install "torchturbo[plot]", '
            "or pip install matplotlib; to_html() needs nothing"
        ) from None
    known = matplotlib.backend_bases.FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise OptionValueError(f"{path}: expected a file that ends in one of {', '.join(f'.{each}' for each in known)}")


def save(title: str, charts: Sequence[Chart], path: str | Path) -> None:
    """Draws charts, one beneath the other, into a file.

    Args:
        title: what stands on top.
        charts: what is to be seen.
        path: the file, whose ending names the format.
    """
    refuse(path)
    figure(title, charts).savefig(path, dpi=150)


def figure(title: str, charts: Sequence[Chart]) -> Figure:
    """Charts, one beneath the other.

    Args:
        title: what stands on top.
        charts: what is to be seen.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [0.75 + 0.34 * len(chart.bars) for chart in charts]
    made = Figure(figsize=(10, 0.5 + sum(heights) + 0.25 * len(charts)), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    made.suptitle(_wrapped(title), fontsize=11, x=0.01, ha="left", color=_INK)
    if charts:
        panels = made.subplots(len(charts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, chart in zip(panels, charts, strict=True):
            _draw(axes, chart)
    return made


def _wrapped(title: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title, 110))


def _draw(axes: Any, chart: Chart) -> None:
    low, high = chart.span
    if chart.log:
        axes.set_xscale("log")
    for place, bar in enumerate(chart.bars):
        colour = _COLOURS[bar.look]
        if chart.log and bar.value > 0:
            axes.plot([bar.value], [place], "D" if bar.look == "bad" else "o", color=colour, markersize=8, zorder=3)
        elif not chart.log:
            axes.barh(place, bar.value, height=0.62, color=colour, alpha=0.75, zorder=2)
        _samples(axes, place, bar, high)
        # Beside the panel and not beside the bar, where dots, bounds and lines are.
        axes.annotate(bar.text, (1, place), (8, 0), ("axes fraction", "data"), "offset points", va="center", color=_INK)
    for number, (value, what) in enumerate(chart.lines):
        axes.axvline(value, color=_INK, linewidth=1.1, linestyle=("--", ":", "-.")[number % 3], zorder=1, label=what)
    axes.set_yticks(range(len(chart.bars)), [_cut(bar.label) for bar in chart.bars])
    axes.set_ylim(len(chart.bars) - 0.45, -0.55)
    axes.set_xlim(low, high * (1 if chart.log else 1.04))
    axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold", color=_INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if chart.lines:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=3, frameon=False, fontsize=9, labelcolor=_INK)


def _samples(axes: Any, place: int, bar: Bar, high: float) -> None:
    every = max(1, -(-len(bar.dots) // _DOTS))
    dots = [dot for dot in bar.dots[::every] if dot <= high * 1.04]
    heights = [place - 0.22 + 0.44 * (number * 7 % 11) / 10 for number in range(len(dots))]
    axes.scatter(dots, heights, s=7, color=_INK, alpha=0.35, linewidths=0, zorder=3)
    if bar.low is not None and bar.high is not None:
        axes.plot([bar.low, bar.high], [place, place], "|-", color=_INK, linewidth=1.6, markersize=9, zorder=4)


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
