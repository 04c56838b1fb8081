"""The words of a search for a loader's settings, without their layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torchturbo._benchmark.data import Between
from torchturbo._tune_loader.data import Growth, LoaderTuning, TriedLoader
from torchturbo._words import arguments, size, some, time

if TYPE_CHECKING:
    from torchturbo._tune_loader.loaders import Source
    from torchturbo._tune_loader.race import Candidate, Race

COLUMNS = ("settings", "batches/s", "first batch", "epoch", "memory", "outcome")


def options(its: Mapping[str, Any]) -> str:
    """Settings as they are written, but those that change nothing: ``num_workers=2, prefetch_factor=4``."""
    plain = {"prefetch_factor": 2, "persistent_workers": False, "pin_memory": False}
    return arguments({name: value for name, value in its.items() if plain.get(name) != value})


def workers(number: int) -> str:
    """A number of workers."""
    return some(number, "worker") if number else "no workers"


def why(
    race: Race,
    best: Candidate,
    source: Source,
    step_seconds: float | None,
    restart: float | None,
    growth: Growth | None,
    stays: bool,
) -> Iterator[str]:
    """Why the best is it, in sentences.

    Args:
        race: what was timed.
        best: what was chosen.
        source: what is loaded.
        step_seconds: what a step takes, if that is said.
        restart: seconds to the first batch where workers stay.
        growth: memory from epoch to epoch.
        stays: whether they are to.
    """
    number, epoch = best.options["num_workers"], race.median(best)
    each = min(visit.each for visit in best.visits.values())
    others = [its for its in race.running(race.all) if its is not best]
    more = [its for its in others if its.options["num_workers"] > number]
    fewer = [its for its in others if its.options["num_workers"] < number]
    if source.no_workers is not None and not number:
        yield f"No workers, since {source.no_workers}."
    elif step_seconds and number and each <= step_seconds:
        yield f"A batch comes each {time(each)}, and a step takes {time(step_seconds)}: there is no waiting."
    if fewer:
        next_best = min(fewer, key=race.median)
        yield (
            f"An epoch of {source.batches} batches takes {time(epoch)} with {options(best.options)}, and "
            f"{time(race.median(next_best))} with {workers(next_best.options['num_workers'])}."
        )
    else:
        yield f"An epoch of {source.batches} batches takes {time(epoch)} with {workers(number)}."
    if more:
        fastest = min(more, key=race.median)
        gain = epoch / race.median(fastest)
        said = "no faster" if gain < 1.01 else f"{gain:.2f} times as fast"
        yield f"With {workers(fastest.options['num_workers'])} it is {said} ({time(race.median(fastest))})."
    if number and restart is not None:
        yield from _of_staying(best.startup, restart, epoch, growth, stays)
    if growth is not None and growth.each:
        yield f"Memory grew by {size(growth.each)} with each epoch of {growth.batches} batches: {_grows(number)}."


def _of_staying(startup: float, restart: float, epoch: float, growth: Growth | None, stays: bool) -> Iterator[str]:
    took = f"the first batch comes after {time(startup)}, and after {time(restart)} where they stay"
    if stays:
        yield f"Workers stay from epoch to epoch: {took}."
    elif growth is not None and growth.each:
        yield "Workers are started anew in each epoch, which gives back the memory that they come to hold."
    else:
        yield f"Workers are started anew in each epoch, of {time(epoch)}: {took}."


def _grows(number: int) -> str:
    if number:
        return "what workers keep is given back when they end"
    return "the dataset keeps something of each batch, or what it is made of"


def heading(found: LoaderTuning) -> str:
    """What came out."""
    return f"DataLoader(..., {arguments(found.best)})"


def about(found: LoaderTuning) -> Iterator[str]:
    """What there is to know of it."""
    yield found.why
    if found.speedup is not None:
        its = found.speedup
        yield (
            f"an epoch is {its.value:.2f} times as fast as with {options(found.baseline)} "
            f"(between {its.low:.2f} and {its.high:.2f} in {_rounds(found)} rounds)"
        )
    yield (
        f"{found.dataset}, {found.batches} batches an epoch; {time(found.seconds)} of {time(found.budget)}, on "
        f"{found.hardware.name}, torch {found.torch}"
    )
    if found.interrupted:
        yield "interrupted: this is the best so far"


def _rounds(found: LoaderTuning) -> int:
    return max(len(its.samples) for its in found.tried)


def cells(its: TriedLoader) -> tuple[str, ...]:
    """One row of the table."""
    return (
        options(its.options),
        "" if its.rate is None else _rate(its.rate),
        "" if its.startup is None else time(its.startup),
        "" if its.epoch is None else time(its.epoch),
        "" if its.memory is None else size(its.memory),
        f"{its.outcome}: {its.why}" if its.why else its.outcome,
    )


def _rate(its: Between) -> str:
    return f"{its.value:,.1f} ({its.low:,.1f} to {its.high:,.1f})"
