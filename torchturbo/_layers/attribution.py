"""What a step's time went to: which layer, and which part of the step.

The CPU's ranges lie within each other; what a range takes beside those within it is its own time, and the own times of
all ranges in a step add up to the step. Each is of the layer and of the part that the nearest range around it is of.
A node of backward is of the layer whose forward has recorded it, which the profiler tells by a number that both have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torchturbo._layers.events import BACKWARD, LAYER, STEP, Kernel, Range

INPUT, FORWARD, BACK, OPTIMIZER, OTHER, IDLE = "input", "forward", "backward", "optimizer", "other", "idle"
_LOADER, _OPTIMIZER = "enumerate(DataLoader)#", "Optimizer."
_COMPILED = ("Torch-Compiled Region", "CompiledFunction", "## Call CompiledFxGraph")
_TO_THE_DEVICE = "Memcpy HtoD"


class _Within(NamedTuple):
    """Where something belongs: the part of the step, and the layers from the outermost to the innermost."""

    part: str
    layers: tuple[str, ...]


@dataclass(slots=True)
class OfLayer:
    """What one layer took in one step, in nanoseconds.

    Attributes:
        whole: by part of the step, with the layers within it.
        own: without them.
        calls: how often it was called.
        compiled: whether it ran as compiled code.
    """

    whole: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    own: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: int = 0
    compiled: bool = False


@dataclass(slots=True)
class OfStep:
    """What one step took, in nanoseconds.

    Attributes:
        total: all of it.
        parts: by part; they add up to the total.
        layers: by name, in the order in which they were first called.
        operators: what each took without those within it, and how often it was called.
        alone: by part, what is of no layer.
    """

    total: int
    parts: dict[str, int]
    layers: dict[str, OfLayer]
    operators: dict[str, tuple[int, int]]
    alone: dict[str, int]


def attributed(ranges: Sequence[Range], kernels: Sequence[Kernel] = ()) -> OfStep:
    """What a step's time went to: the GPU's where kernels ran, else the CPU's.

    Args:
        ranges: all that was seen; one of them is the step.
        kernels: what the GPU did.
    """
    step = next(each for each in ranges if each.name == STEP)
    mine = sorted(_of(step, ranges), key=lambda each: (each.start, -each.end))
    above = list(_above(mine))
    within = _within(mine, above)
    own = [each.end - each.start for each in mine]
    for place, parent in enumerate(above):
        if parent is not None:
            own[parent] -= mine[place].end - mine[place].start
    layers: dict[str, OfLayer] = {}
    for each, where in zip(mine, within, strict=True):
        if each.name.startswith(LAYER):
            layers.setdefault(where.layers[-1], OfLayer()).calls += 1
        elif each.name.startswith(_COMPILED) and where.layers:
            layers[where.layers[-1]].compiled = True
    spent = (
        list(_on_the_gpu(mine, within, kernels))
        if kernels
        else [(each.name, max(0, its), where) for each, its, where in zip(mine, own, within, strict=True)]
    )
    alone: dict[str, int] = defaultdict(int)
    for _, took, where in spent:
        if where.layers:
            layers[where.layers[-1]].own[where.part] += took
        else:
            alone[where.part] += took
        for layer in dict.fromkeys(where.layers):
            layers[layer].whole[where.part] += took
    if kernels:
        total, parts = _timeline(step, mine, within, kernels)
    else:
        total, parts = step.end - step.start, defaultdict(int)
        for _, took, where in spent:
            parts[where.part] += took
    return OfStep(
        total, {part: its for part, its in parts.items() if its}, layers, _operators(mine, spent), dict(alone)
    )


def _of(step: Range, ranges: Sequence[Range]) -> Iterator[Range]:
    """What lies in the step: in its thread, and in those that run backward while its thread waits for them."""
    waits = [each for each in ranges if each.name == BACKWARD and each.thread == step.thread]
    for each in ranges:
        if each.thread == step.thread:
            if each.start >= step.start and each.end <= step.end:
                yield each
        elif any(wait.start <= each.start and each.end <= wait.end for wait in waits):
            yield each


def _above(ordered: Sequence[Range]) -> Iterator[int | None]:
    """Of each range the place of the one that it lies in."""
    open_: list[int] = []
    for place, each in enumerate(ordered):
        while open_ and ordered[open_[-1]].end < each.end:
            open_.pop()
        yield open_[-1] if open_ else None
        open_.append(place)


def _within(ordered: Sequence[Range], above: Sequence[int | None]) -> list[_Within]:
    nodes = {(each.forward_thread, each.sequence) for each in ordered if each.is_node}
    # Operators that record nothing have the number of the next one that does: the last one has recorded it.
    makers = {
        (each.thread, each.sequence): place
        for place, each in enumerate(ordered)
        if not each.forward_thread and (each.thread, each.sequence) in nodes
    }
    leads_to_backward: set[int] = set()
    for place in makers.values():
        up: int | None = place
        while up is not None and up not in leads_to_backward:
            leads_to_backward.add(up)
            up = above[up]
    found: list[_Within] = []
    for place, each in enumerate(ordered):
        parent = above[place]
        part, layers = found[parent] if parent is not None else _Within(OTHER, ())
        if each.name.startswith(LAYER):
            name = each.name.removeprefix(LAYER)
            part, layers = (part if part == BACK else FORWARD), (*(its for its in layers if its != name), name)
        elif each.is_node:
            maker = makers.get((each.forward_thread, each.sequence))
            part, layers = BACK, found[maker].layers if maker is not None and maker < place else ()
        elif each.name == BACKWARD:
            part = BACK
        elif each.name.startswith(_OPTIMIZER):
            part, layers = OPTIMIZER, ()
        elif each.name.startswith(_LOADER):
            part = INPUT
        elif part == OTHER and each.name != STEP and place in leads_to_backward:
            part = FORWARD  # a loss that is a function, and no module
        found.append(_Within(part, layers))
    return found


def _on_the_gpu(
    ordered: Sequence[Range], within: Sequence[_Within], kernels: Sequence[Kernel]
) -> Iterator[tuple[str, int, _Within]]:
    place = {each.key: place for place, each in enumerate(ordered)}
    for kernel in kernels:
        by = place.get(kernel.by)
        where = within[by] if by is not None else _Within(OTHER, ())
        if where.part == OTHER and _TO_THE_DEVICE in kernel.name:
            where = _Within(INPUT, ())
        yield (ordered[by].name if by is not None else kernel.name), kernel.end - kernel.start, where


def _timeline(
    step: Range, ordered: Sequence[Range], within: Sequence[_Within], kernels: Sequence[Kernel]
) -> tuple[int, dict[str, int]]:
    """What the GPU was at, moment by moment: a kernel, or none, because of the input or for another reason."""
    parts: dict[str, int] = defaultdict(int)
    waits = [(each.start, each.end) for each in ordered if each.name.startswith(_LOADER)]
    now = step.start
    end = max(step.end, *(kernel.end for kernel in kernels))

    def nothing_until(then: int) -> None:
        if then > now:
            waited = sum(max(0, min(then, late) - max(now, early)) for early, late in waits)
            parts[INPUT] += waited
            parts[IDLE] += then - now - waited

    of = [where.part for _, _, where in _on_the_gpu(ordered, within, kernels)]
    for kernel, part in sorted(zip(kernels, of, strict=True), key=lambda pair: pair[0].start):
        nothing_until(kernel.start)
        now = max(now, kernel.start)
        if kernel.end > now:
            parts[part] += kernel.end - now
            now = kernel.end
    nothing_until(end)
    return end - step.start, parts


def _operators(ordered: Sequence[Range], spent: Sequence[tuple[str, int, _Within]]) -> dict[str, tuple[int, int]]:
    """What operators took; ranges that only stand around some are none."""
    calls: dict[str, int] = defaultdict(int)
    for each in ordered:
        calls[each.name] += 1
    took: dict[str, int] = defaultdict(int)
    for name, its, _ in spent:
        took[name] += its
    around = (LAYER, _OPTIMIZER, _LOADER, STEP, BACKWARD, "autograd::engine")
    return {name: (its, calls[name]) for name, its in took.items() if not name.startswith(around)}
