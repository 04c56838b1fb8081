"""Two records, and the first thing in which they differ."""

from __future__ import annotations

import math

from torchturbo._replay.bits import largest_difference
from torchturbo._replay.record import Event, Record, place
from torchturbo._reproducible.data import Difference


def first_difference(first: Record, other: Record, run: int) -> Difference | None:
    """The first event, in the order of the program, in which a run is not what the first one was, or None.

    Args:
        first: the record of run 1.
        other: that of another one.
        run: its number.
    """
    for number, (one, two) in enumerate(zip(first.events, other.events, strict=False)):
        if one.place != two.place:
            return _other_order(run, one, two, moved_between(first, other, number))
        if (one.digest, one.dtype, one.shape) != (two.digest, two.dtype, two.shape):
            return _other_value(run, one, two, moved_between(first, other, number))
    if len(first.events) != len(other.events):
        longer, at = max(first.events, other.events, key=len), min(len(first.events), len(other.events))
        event = longer[at]
        who = "run 1" if longer is first.events else f"run {run}"
        note = f"{who} went on with the {place(*event.place)}, the other one did not"
        return Difference(run, "order", event.name, "", event.call, event.step, None, (), None, (), note)
    return None


def moved_between(first: Record, other: Record, number: int) -> tuple[str, ...]:
    """The random streams that stood elsewhere in the other run when an event came, and had been drawn from.

    Args:
        first: the record of run 1.
        other: that of another one.
        number: of the event, counted from 0.
    """
    (_, begin), (_, other_begin) = first.streams[0], other.streams[0]
    pairs = [(one, two) for (at, one), (_, two) in zip(first.streams, other.streams, strict=False) if at <= number]
    now, other_now = pairs[-1]
    return tuple(
        name
        for name, its in now.items()
        if name in other_now
        and its != other_now[name]
        # In fresh processes streams that nobody uses begin elsewhere too.
        and (its, other_now[name]) != (begin.get(name, its), other_begin.get(name, other_now[name]))
    )


def _other_order(run: int, one: Event, two: Event, streams: tuple[str, ...]) -> Difference:
    was, now = (place(*each.place) for each in (one, two))
    note = f"run 1 had the {was} where run {run} had the {now}"
    return Difference(run, "order", one.name, "", one.call, one.step, None, (), None, streams, note)


def _other_value(run: int, one: Event, two: Event, streams: tuple[str, ...]) -> Difference:
    largest, notes = None, []
    if one.dtype is None or two.dtype is None:
        notes.append(
            f"{one.digest if one.dtype is None else 'a tensor'} in run 1, "
            f"{two.digest if two.dtype is None else 'a tensor'} in run {run}"
        )
    elif (one.dtype, one.shape) != (two.dtype, two.shape):
        notes.append(f"{one.dtype} {list(one.shape)} in run 1, {two.dtype} {list(two.shape)} in run {run}")
    elif one.value is not None and two.value is not None:
        largest = largest_difference(one.value, two.value)
        if largest == 0.0:
            notes.append("only the sign of zero differs")
        if math.isnan(largest):
            notes.append("NaN in one run where the other one has a number")
    else:
        notes.append(f"too much memory to keep it; its sum was {one.total:g} in run 1, {two.total:g} in run {run}")
    place = one.kind, one.name, one.part, one.call, one.step
    return Difference(run, *place, one.dtype, one.shape, largest, streams, "; ".join(notes))
