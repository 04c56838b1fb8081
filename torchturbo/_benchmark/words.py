"""The words of a benchmark, without their layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torchturbo._benchmark.data import Between, Comparison, Drift, Switch, Timed
from torchturbo._words import milliseconds, size, some

_COLUMNS = {
    "settings": 0,
    "ms a step": 1,
    "half between": 7,
    "speed-up": 2,
    "samples/s": 8,
    "memory": 4,
    "GPU busy": 9,
    "first step": 5,
    "pays after": 6,
    "drift": 3,
}
"""The columns in their order, each with its rank: where there is no room for all, the last in rank are left out."""
_BETWEEN = 2
"""Columns between two columns of a table."""
_SETTINGS = 24
"""Columns that the settings' names can do with, over several lines."""


def heading(found: Comparison) -> str:
    """What was done."""
    machine = found.hardware.name
    return f"{found.rounds} rounds in turn, {some(found.steps, 'step')} a sample, on {machine}, torch {found.torch}."


def columns(found: Comparison, width: int | None = None) -> tuple[str, ...]:
    """The columns of the table: those in which there is anything to be told, as far as there is room.

    Args:
        found: the comparison.
        width: the room; None for any.
    """
    names = [name for name in _COLUMNS if any(cell(row, name) for row in found.rows)]
    if width is None:
        return tuple(names)
    needs = {name: _BETWEEN + max(len(name), *(len(cell(row, name)) for row in found.rows)) for name in names}
    needs["settings"] = min(needs["settings"], _SETTINGS)
    kept: list[str] = []
    for name in sorted(names, key=_COLUMNS.__getitem__):
        width -= needs[name]
        if width >= -_BETWEEN or _COLUMNS[name] <= _COLUMNS["speed-up"]:
            kept.append(name)
    return tuple(name for name in names if name in kept)


def cells(row: Timed, names: tuple[str, ...]) -> list[str]:
    """One row of the table."""
    return [cell(row, name) for name in names]


def cell(row: Timed, name: str) -> str:
    """What stands in one cell; empty where there is nothing to be told."""
    if name == "settings":
        return f"{row.name} (as {row.same_as})" if row.same_as else row.name
    if row.failed:
        return "failed" if name == "speed-up" else ""
    if name == "ms a step":
        return milliseconds(row.seconds.value) if row.seconds else ""
    if name == "half between":
        return " .. ".join(map(milliseconds, row.quartiles)) if row.quartiles else ""
    if name == "speed-up":
        return speedup(row.speedup, row.verdict) if row.speedup else "1"
    if name == "samples/s":
        return f"{row.rate:,.0f}" if row.rate else ""
    if name == "memory":
        return size(row.memory) if row.memory is not None else ""
    if name == "GPU busy":
        return f"{row.utilization:.0f} %" if row.utilization is not None else ""
    if name == "first step":
        return f"+{row.first_seconds:.2g} s" if row.first_seconds and row.first_seconds > 0.1 else ""
    if name == "pays after":
        return some(row.pays_after, "step") if row.pays_after else ""
    return drift(row.drift)


def speedup(its: Between, verdict: str | None) -> str:
    """A speed-up with its bounds; one inside the noise is called none."""
    between = f"({its.low:.2f} .. {its.high:.2f})"
    return f"none {between}" if verdict == "no difference" else f"{its.value:.2f} {between}"


def drift(its: Drift | None) -> str:
    """How far the numbers are, in one cell."""
    if its is None:
        return ""
    if its.same:
        return "none"
    return f"{its.largest:.1e}" if its.largest is not None else ""


def switch(its: Switch) -> tuple[str, str, str]:
    """What one option buys, in three cells."""
    alone = speedup(its.alone, its.alone_verdict) if its.alone else "the same settings"
    within = speedup(its.within, its.within_verdict) if its.within else "the same settings"
    return f"{its.option}={its.value!r}", alone, within


SWITCHES = ("option", "alone", "within all of them")


def surroundings(found: Comparison) -> dict[str, object]:
    """What it was measured on, and how, by name."""
    its = found.hardware
    return {
        "GPU": ", ".join(its.names_of_gpus) or "none",
        "CPU": f"{its.cpu.name}, {its.cpu.cores} cores",
        "torch": found.torch,
        "Python": its.build.python,
        "platform": its.build.platform,
        "rounds": f"{found.rounds}, {found.steps} steps a sample",
        "took": f"{found.seconds:.0f} s",
    }


def about(found: Comparison) -> Iterator[str]:
    """What there is to know of the numbers."""
    yield (
        "speed-up: the time of a step as it is, by this one; the median of all rounds, and what it surely lies between"
    )
    noise = found.noise.largest if found.noise is not None else None
    beside = "" if noise is None else f"; the reference is {noise:.1e} from itself when its sums are in another order"
    yield f"drift: how far loss, gradients and outputs are from those of {found.reference}, relative to them{beside}"


def reasons(found: Comparison) -> Iterator[str]:
    """What failed, what could not be compared, and what has no effect here: each once, with all that it is true of."""
    for row in found.rows:
        if row.failed:
            yield f"{row.name} failed: {row.failed}"
    yield from _together((row.drift.note, row.name) for row in found.rows if row.drift is not None and row.drift.note)
    # One reason may be that of several options, and one option may be without effect in several rows.
    options: dict[str, dict[str, list[str]]] = {}
    for row in found.rows:
        for option, why in row.refused.items():
            options.setdefault(why, {}).setdefault(option, []).append(row.name)
    for why, its in options.items():
        rows: dict[tuple[str, ...], list[str]] = {}
        for option, names in its.items():
            rows.setdefault(tuple(names), []).append(option)
        told = "; ".join(f"{', '.join(each)} ({', '.join(names)})" for names, each in rows.items())
        yield f"no effect here: {told}: {why}"


def _together(said: Iterable[tuple[str, str]]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for what, name in said:
        names.setdefault(what, []).append(name)
    yield from (f"{', '.join(each)}: {what}" for what, each in names.items())
