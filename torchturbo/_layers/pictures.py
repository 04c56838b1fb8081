"""What there is to see of a profile by layers: parts of the step, the costliest layers, and the page that has them."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._layers import words
from torchturbo._layers.data import LayerCosts
from torchturbo._pictures.charts import Bar, Chart
from torchturbo._pictures.page import Part, Rows, facts, lines
from torchturbo._words import milliseconds, size

_TOP = 15


def shares(found: LayerCosts) -> Chart:
    """What share of the step each part of it is."""
    bars = (Bar(its.part, its.percent, f"{its.percent:.1f} %  {milliseconds(its.seconds)} ms") for its in found.shares)
    return Chart("Shares of the step, percent", tuple(bars))


def layers(found: LayerCosts) -> Chart | None:
    """The costliest layers by their own time; None where there are none."""
    bars = tuple(
        Bar(its.name, its.own * 1e3, f"{milliseconds(its.own)} ms  {words.percent(its.own, found.profiled)}")
        for its in found.layers[:_TOP]
    )
    return Chart("Costliest layers by their own time, ms a step", bars) if bars else None


def memory(found: LayerCosts) -> Chart | None:
    """The layers that keep most for backward; None where none keeps anything."""
    most = sorted((its for its in found.layers if its.kept_own), key=lambda its: -its.kept_own)[:_TOP]
    bars = tuple(Bar(its.name, its.kept_own / 1024**2, size(its.kept_own)) for its in most)
    return Chart("Kept for backward, MiB", bars) if bars else None


def charts(found: LayerCosts) -> list[Chart]:
    """All that there is to see."""
    return [chart for chart in (shares(found), layers(found), memory(found)) if chart is not None]


def page(found: LayerCosts) -> Iterator[Part]:
    """What a page says, from its heading on."""
    yield from charts(found)
    yield Rows("Layers", words.LAYERS, words.layers(found, words.LAYERS))
    yield Rows("Operators", words.OPERATORS, words.operators(found, 30))
    yield lines("What the numbers are", words.about(found))
    yield facts("Parts of the step", dict(words.shares(found)))
    yield lines("Notes", found.notes)
    its = found.hardware
    machine = {
        "GPU": ", ".join(its.names_of_gpus) or "none",
        "CPU": f"{its.cpu.name}, {its.cpu.cores} cores",
    }
    versions = {"torch": found.torch, "Python": its.build.python, "platform": its.build.platform}
    yield facts("Measured on", machine | versions)
