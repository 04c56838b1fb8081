"""The words of a profile by layers, without their layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchturbo._layers.data import Layer, LayerCosts
from torchturbo._words import arguments, milliseconds, size

LAYERS = ("layer", "own ms", "share", "forward", "backward", "with all within", "keeps", "weights", "calls")
NARROW = ("layer", "own ms", "share", "forward", "backward", "keeps")
OPERATORS = ("operator", "ms", "share", "calls")
_ABOUT = {
    "input": "getting the batch: in a DataLoader, and copies to the GPU outside of all else",
    "forward": "modules, and functions whose results backward goes through",
    "backward": "backward, with what checkpoints compute again in it",
    "optimizer": "step and zero_grad",
    "other": "all else: Python between them, numbers that are read, data made without a DataLoader",
    "idle": "no kernel ran on the GPU, and it was not the input that it waited for",
}


def heading(found: LayerCosts) -> str:
    """What was done."""
    under = arguments(found.settings)
    return (
        f"{found.step}: {milliseconds(found.seconds)} ms a step{f' under {under}' if under else ''}, "
        f"on {found.hardware.name}, torch {found.torch}."
    )


def shares(found: LayerCosts) -> list[tuple[str, str]]:
    """Each part of the step with what is in it."""
    return [(share.part, _ABOUT[share.part]) for share in found.shares]


def percent(part: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def cell(its: Layer, name: str, found: LayerCosts) -> str:
    """What stands in one cell of the table of layers."""
    cells = {
        "layer": its.name + (" (compiled)" if its.compiled else ""),
        "own ms": milliseconds(its.own),
        "share": percent(its.own, found.profiled),
        "forward": milliseconds(its.forward_own),
        "backward": milliseconds(its.backward_own),
        "with all within": milliseconds(its.seconds),
        "keeps": size(its.kept_own) if its.kept_own else "",
        "weights": size(its.parameters_own) if its.parameters_own else "",
        "calls": f"{its.calls:,}",
    }
    return cells[name]


def layers(found: LayerCosts, names: Sequence[str], top: int | None = None) -> list[list[str]]:
    """Rows of the table of layers, the costliest first."""
    return [[cell(its, name, found) for name in names] for its in found.layers[:top]]


def operators(found: LayerCosts, top: int | None = None) -> list[list[str]]:
    """Rows of the table of operators, the costliest first."""
    return [
        [each.name, milliseconds(each.seconds), percent(each.seconds, found.profiled), f"{each.calls:,}"]
        for each in found.operators[:top]
    ]


def more(found: LayerCosts, top: int) -> str:
    """What is not in the tables; empty where all is."""
    left = len(found.layers) - top
    return f"{left} more layers: --top, or to_dict() for all" if left > 0 else ""


def about(found: LayerCosts) -> Iterator[str]:
    """What there is to know of the numbers."""
    yield (
        f"times: of one step, the median of {found.steps}, on the {found.clock}; own: without the modules within. "
        f"A step takes {milliseconds(found.profiled)} ms under the profiler, of which the shares are, and "
        f"{milliseconds(found.seconds)} ms without"
    )
    alone = {part: its for part, its in found.alone.items() if its}
    if alone:
        told = ", ".join(f"{part} {percent(its, found.profiled)}" for part, its in alone.items())
        yield f"of no layer: {told} (losses that are functions, gradients that are added up, the engine itself)"
    kept = f"; {size(found.kept_alone)} are of no layer" if found.kept_alone else ""
    yield f"keeps: tensors that are kept for backward, weights aside{kept}"
    if found.trace is not None:
        yield f"trace: {found.trace}, to be opened at https://ui.perfetto.dev"
