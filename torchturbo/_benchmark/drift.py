"""How far the numbers of a step are from those of another run of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf, isfinite, isnan, nan, sqrt

import torch
from torch import Tensor

from torchturbo._benchmark.data import Drift
from torchturbo._replay.record import Event, Record

Pair = tuple[Tensor, Tensor]


def drift_of(record: Record, reference: Record) -> Drift:
    """How far a run is from the reference.

    Args:
        record: what the step has done.
        reference: what it has done under the settings that count as right.
    """
    theirs = dict(_numbered(reference))
    pairs = [(event, theirs[place]) for place, event in _numbered(record) if place in theirs]
    outermost = {(event.name, event.call) for event in record.events if event.kind == "input"}
    alone = len(record.events) + len(reference.events) - 2 * len(pairs)
    untold = sum(event.dtype is not None and event.value is None for pair in pairs for event in pair)
    notes = []
    steps = record.steps, reference.steps
    if steps[0] != steps[1]:
        notes.append(
            f"its optimizers took {steps[0]} steps, and the reference's {steps[1]} (a step whose fp16 gradients "
            "overflow is left out): parameters were not compared"
        )
    elif alone:
        notes.append(f"{alone} values are of one of the two runs alone: they do not do the same things")
    if untold:
        notes.append(f"{untold} tensors were too large to be kept, and were not compared")
    return Drift(
        loss=_loss([pair for pair in pairs if pair[0].kind == "returned"]),
        gradients=_together(_tensors(pairs, "gradient")),
        outputs=_together(_tensors([(a, b) for a, b in pairs if (a.name, a.call) in outermost], "output")),
        parameters=_together(_changes(record, reference)) if steps[0] == steps[1] else None,
        same=not alone and all(one.digest == other.digest for one, other in pairs if one.kind != "input"),
        note="; ".join(notes),
    )


def _numbered(record: Record) -> Iterator[tuple[tuple[object, ...], Event]]:
    """What a run did, each by its place, and by how many have been at that place before."""
    counted: Counter[tuple[object, ...]] = Counter()
    for event in record.events:
        yield (*event.place, counted[event.place]), event
        counted[event.place] += 1


def _tensors(pairs: Iterable[tuple[Event, Event]], kind: str) -> Iterator[Pair]:
    for one, other in pairs:
        if one.kind == kind and one.value is not None and other.value is not None and one.shape == other.shape:
            yield one.value, other.value


def _together(pairs: Iterable[Pair]) -> float | None:
    """The length of all differences together, by the length of the references together; None of no pairs."""
    apart, length, any_at_all = 0.0, 0.0, False
    for one, other in pairs:
        if not (one.is_floating_point() or one.is_complex()) or not other.numel():
            continue
        any_at_all = True
        one, other = _double(one), _double(other)
        if torch.equal(one, other):
            length += float(other.abs().square().sum())
            continue
        # What is infinite in both at the same place is no difference.
        far = torch.where(one == other, torch.zeros_like(one), one - other)
        apart += float(far.abs().square().sum())
        length += float(other.abs().square().sum())
    if not any_at_all:
        return None
    return _relative(sqrt(apart) if isfinite(apart) else apart, sqrt(length) if isfinite(length) else length)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def _relative(apart: float, length: float) -> float:
    if apart == 0:
        return 0.0
    return apart / length if length else inf


def _loss(pairs: list[tuple[Event, Event]]) -> float | None:
    """The largest relative difference of the numbers that were returned."""
    numbers = ((_number(one), _number(other)) for one, other in pairs)
    found = [_relative(abs(one - other), abs(other)) for one, other in numbers if one is not None and other is not None]
    return nan if any(map(isnan, found)) else max(found, default=None)


def _number(event: Event) -> float | None:
    """The number that was returned, or None for anything else."""
    if event.value is not None:
        return None if event.value.numel() != 1 or event.value.is_complex() else float(event.value)
    try:
        return float(event.digest) if event.dtype is None else None
    except ValueError:
        return None


def _changes(record: Record, reference: Record) -> Iterator[Pair]:
    """What the optimizers of two runs have made of each parameter, less what it was."""
    one, other = _changed(record), _changed(reference)
    for name in one.keys() & other.keys():
        if one[name].shape == other[name].shape:
            yield one[name], other[name]


def _changed(record: Record) -> dict[str, Tensor]:
    began = {e.name + e.part: e.value for e in record.events if e.kind == "start" and e.value is not None}
    ended = {e.name + e.part: e.value for e in record.events if e.kind == "parameter" and e.value is not None}
    return {
        name: value.double() - before.double()
        for name, value in ended.items()
        if (before := began.get(name)) is not None and value.is_floating_point() and before.shape == value.shape
    }
