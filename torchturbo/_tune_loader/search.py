"""Searches for the settings with which a loader's epoch is shortest: workers, what is ahead, whether they stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from torchturbo._benchmark.data import Between
from torchturbo._benchmark.ratios import between, ratios
from torchturbo._cached.loaders import CachedLoader
from torchturbo._together import agreed, alike, on_all, several, told
from torchturbo._tune_loader import words
from torchturbo._tune_loader.data import Growth, LoaderTuning, TriedLoader
from torchturbo._tune_loader.loaders import Source
from torchturbo._tune_loader.race import Candidate, Race
from torchturbo.hardware import _room, detect
from torchturbo.regions._arguments import no_pinning
from torchturbo.regions._datasets import not_to_be_pinned, written_by

_MOST_WORKERS = 32
_WORTH_TWICE = 1.1
"""The speed-up of twice the workers from which on twice as many again are tried."""
_ROUNDS = 12
_FOR_WORKERS, _FOR_BOTH = 0.6, 0.85
"""The share of the budget by which workers are settled, and by which what is ahead is too."""
_OVER = 0.2
"""Of the budget, that looking at memory may take beyond it."""
_WORTH = 0.01
"""Of an epoch, that is saved where workers stay."""


def search(
    source: Source, budget: float, step_seconds: float | None, tell: Callable[[str], None], dataset: str
) -> LoaderTuning:
    """Searches.

    Args:
        source: what is loaded.
        budget: seconds that it may take.
        step_seconds: what a step takes, if that is said.
        tell: of what is going on.
        dataset: its name, for the result.
    """
    began = time.perf_counter()
    alike("the data loader", source.baseline)
    source.batches, source.no_workers = agreed((source.batches, source.no_workers))
    each = min(1.0, max(0.02, budget / 60))
    race = Race(source, step_seconds, each, tell)
    baseline = race.enter(anew(source.baseline))
    best, restart, growth, interrupted = baseline, None, None, False
    try:
        best = _settle_workers(race, baseline, source, began + _FOR_WORKERS * budget)
        best = _settle_the_rest(race, baseline, best, source, began + _FOR_BOTH * budget)
        left = agreed(began + (1 + _OVER) * budget - time.perf_counter())
        if best.startup + race.meter.EPOCHS * (each + race.median(best) / source.batches) < left:
            tell("memory from epoch to epoch")
            restart, growth = agreed(on_all(partial(race.meter.epochs, best.options, each)))
    except KeyboardInterrupt:
        if several() or not race.running(race.all):
            raise
        interrupted, best = True, race.enough(race.all)
    stays = _stays(source, race, best, restart, growth)
    options = {**best.options, "persistent_workers": stays} if best.options["num_workers"] else best.options
    return LoaderTuning(
        best=options,
        why=" ".join(words.why(race, best, source, step_seconds, restart, growth, stays)),
        baseline=source.baseline,
        speedup=_speedup(race, baseline, best),
        tried=tuple(_told(race, its, best) for its in race.all),
        growth=growth,
        batches=source.batches,
        step_seconds=step_seconds,
        dataset=dataset,
        seconds=time.perf_counter() - began,
        budget=budget,
        interrupted=interrupted,
        hardware=detect(),
        torch=torch.__version__,
        notes=tuple(_notes(source, growth)),
    )


def anew(options: dict[str, Any]) -> dict[str, Any]:
    """Settings with workers that are started in each epoch.

    Args:
        options: of the `DataLoader` call.
    """
    return {**options, "persistent_workers": False} if options["num_workers"] else options


def _with(workers: int, prefetch: int = 2, *, pinned: bool) -> dict[str, Any]:
    if not workers:
        return {"num_workers": 0, "pin_memory": pinned}
    return {"num_workers": workers, "prefetch_factor": prefetch, "persistent_workers": False, "pin_memory": pinned}


def _settle_workers(race: Race, baseline: Candidate, source: Source, until: float) -> Candidate:
    pinned = source.baseline["pin_memory"]
    runs = [race.enter(_with(0, pinned=pinned)), baseline]
    if source.no_workers is None:
        cores, number = agreed(_room.cores(detect().cpu.cores)), 1
        while number <= min(cores, _MOST_WORKERS):
            runs.append(race.enter(_with(number, pinned=pinned)))
            number *= 2
    runs = list(dict.fromkeys(runs))
    for number in range(_ROUNDS):
        if not race.round(runs, until):
            break
        more = _more(race, runs)
        if more is not None and source.no_workers is None:
            runs.append(race.enter(_with(more, pinned=pinned)))
        elif number > 1:
            runs = race.drop_losers(runs, baseline)
    return race.enough(race.all)


def _more(race: Race, runs: list[Candidate]) -> int | None:
    """Twice the most workers so far, where these were worth it: data may wait for a disk, and not compute."""
    most, *others = sorted(runs, key=lambda each: each.cost, reverse=True)
    others = race.running(others)
    if most.outcome is not None or not others:
        return None
    number: int = most.options["num_workers"] * 2
    worth = race.median(others[0]) > _WORTH_TWICE * race.median(most)
    return number if worth and 0 < number <= _MOST_WORKERS else None


def _settle_the_rest(race: Race, baseline: Candidate, best: Candidate, source: Source, until: float) -> Candidate:
    workers, options = best.options["num_workers"], best.options
    tried = [dict(options, prefetch_factor=4)] if workers else []
    pins = no_pinning(detect()) is None and torch.cuda.is_available() and not not_to_be_pinned(source.named)
    if agreed(pins):
        tried.append(dict(options, pin_memory=not options["pin_memory"]))
    runs = list(dict.fromkeys([baseline, best, *map(race.enter, tried)]))
    for _ in range(_ROUNDS if tried else 0):
        if not race.round(runs, until):
            break
    faster = [its for its in runs if its is not baseline and race.is_faster(its, best)]
    return min(faster, key=race.median, default=best)


def _stays(source: Source, race: Race, best: Candidate, restart: float | None, growth: Growth | None) -> bool:
    """Whether workers are worth to be kept from epoch to epoch."""
    if not best.options["num_workers"] or restart is None or growth is None or growth.each:
        return False
    if hasattr(type(source.loader.dataset), "set_epoch"):
        return False
    return best.startup - restart > _WORTH * race.median(best)


def _speedup(race: Race, baseline: Candidate, best: Candidate) -> Between | None:
    before, after = race.samples(baseline), race.samples(best)
    both = sorted(before.keys() & after.keys())
    if baseline is best or not both:
        return None
    return between(ratios([before[number] for number in both], [after[number] for number in both]))


def _told(race: Race, its: Candidate, best: Candidate) -> TriedLoader:
    if not its.visits:
        return TriedLoader(its.options, its.outcome or "no time", None, None, None, None, (), its.why)
    samples = tuple(race.samples(its).values())
    slower = race.median(its) > race.tolerated
    outcome = its.outcome or ("chosen" if its is best else "slower" if slower else "as fast")
    rate = between([1 / visit.each for visit in its.visits.values()])
    return TriedLoader(its.options, outcome, rate, its.startup, race.median(its), its.memory, samples, its.why)


def _notes(source: Source, growth: Growth | None) -> Iterator[str]:
    yield from told("each visit counts as the slowest rank's, and each loads its own")
    if isinstance(source.loader, CachedLoader):
        yield "its batches are cached: what was measured is building them, as in a first epoch; later ones read them"
    if source.no_workers is not None:
        yield f"no workers were tried: {source.no_workers}"
    if (names := written_by(source.loader.dataset)) is not None:
        yield f"the dataset writes {names} as it is read, which each worker does to a copy of its own"
    if (reason := no_pinning(detect())) is not None:
        yield f"pin_memory was not tried: {reason}"
    if not source.knows:
        yield f"nobody knows how long an epoch is: {source.batches} batches are taken for one; say it with batches="
    if growth is None:
        yield "there was no time to look at memory from epoch to epoch"
