"""A benchmark from its beginning to its end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

import torch

from torchturbo import hardware
from torchturbo._benchmark import contenders as who
from torchturbo._benchmark.contenders import Contender
from torchturbo._benchmark.data import Comparison, Drift, Switch, Timed
from torchturbo._benchmark.numbers import Drifts, refuse_shards_in_float64
from torchturbo._benchmark.race import Lane, Race
from torchturbo._benchmark.ratios import between, judged, ratios
from torchturbo._replay.here import Here
from torchturbo._together import alike, told
from torchturbo.errors import in_a_line
from torchturbo.profiles import Profile

Tell = Callable[[str], None]


def compare(
    begin: Callable[[], Here],
    profiles: Sequence[str | Profile],
    options: Mapping[str, Any],
    *,
    seconds: float,
    reference: str,
    one_at_a_time: bool,
    tell: Tell,
) -> Comparison:
    """What `torchturbo.benchmark` does, once its arguments have been looked at."""
    began = time.perf_counter()
    with who.by_the_code_alone() as others:
        base, asked = who.baseline(), who.named(profiles, options)
        defaults = who.plain()
        beside = [base, *([defaults] if defaults else []), *asked]
        shown = list(beside)
        switches = list(who.one_at_a_time(asked[-1])) if one_at_a_time and asked else []
        beside += [each for _, _, alone, rest in switches for each in (alone, rest)]
        right = who.reference(reference)
        same = who.alike(beside)
        alike("what would be measured", [(each.name, each.values) for each in beside if each not in same])
        here = begin()
        refuse_shards_in_float64(here, right)
        tell("what the step uses")
        drifts = Drifts(here, right, here.find(base.around))
        race = Race(here, [each for each in beside if each not in same])
        for number, lane in enumerate(race.lanes):
            tell(f"{lane.contender.name}: first steps ({number + 1} of {len(race.lanes)})")
            race.warm_up(lane)
        rounds = race.fit(seconds)
        while race.rounds < rounds:
            tell(f"round {race.rounds + 1} of {rounds}")
            race.round()
        tell("memory")
        lanes = {lane.contender: lane for lane in race.lanes}
        for each in dict.fromkeys(same.get(each, each) for each in shown):
            race.look(lanes[each])
        tell(f"numbers, beside those of {reference}")
        rows = [_row(lanes[same.get(each, each)], race, drifts, each) for each in shown]
        first = lanes[base]
        found = [
            _switch(option, value, lanes, same, first, asked[-1], alone, rest)
            for option, value, alone, rest in switches
        ]
        noise = drifts.noise()
        return Comparison(
            rows=tuple(rows),
            switches=tuple(found),
            reference=reference,
            noise=noise,
            rounds=race.rounds,
            steps=race.steps,
            batch=drifts.batch,
            seconds=time.perf_counter() - began,
            hardware=hardware.detect(),
            torch=str(torch.__version__),
            notes=tuple(_notes(here, race, drifts, others, defaults)),
        )


def _row(lane: Lane, race: Race, drifts: Drifts, contender: Contender) -> Timed:
    first = race.lanes[0]
    samples = list(lane.samples.values())
    drift: Drift | None = None
    if lane.failed is None:
        try:
            drift = drifts.of(lane.contender)
        except Exception as error:
            lane.failed = error.with_traceback(None)
    speedup = between(ratios(*first.beside(lane))) if lane.failed is None and lane is not first else None
    once = None
    if lane.first is not None and samples:
        once = max(0.0, lane.first - statistics.median(samples))
    quarters = statistics.quantiles(samples, n=4) if len(samples) > 1 else None
    seconds = between(samples) if samples else None
    return Timed(
        name=contender.name,
        settings=contender.settings,
        refused=contender.refused,
        same_as=lane.contender.name if lane.contender is not contender else None,
        seconds=seconds,
        quartiles=(quarters[0], quarters[2]) if quarters else None,
        speedup=speedup,
        verdict=judged(speedup) if speedup else None,
        rate=drifts.batch / seconds.value if drifts.batch and seconds else None,
        memory=lane.memory,
        first_seconds=once,
        pays_after=_pays_after(lane, first, once),
        recompiles=lane.recompiles,
        utilization=lane.utilization,
        drift=drift,
        failed=None if lane.failed is None else in_a_line(lane.failed),
        samples=tuple(samples),
    )


def _pays_after(lane: Lane, first: Lane, once: float | None) -> int | None:
    """Steps after which what a first step has taken longer than the baseline's has been made up for."""
    if once is None or lane is first or not lane.samples or first.first is None:
        return None
    its, theirs = first.beside(lane)
    gain = statistics.median(its) - statistics.median(theirs) if its else 0.0
    dear = once - max(0.0, first.first - statistics.median(first.samples.values()))
    if dear <= 0:
        return 0
    return ceil(dear / gain) if gain > 0 else None


def _switch(
    option: str,
    value: object,
    lanes: Mapping[Contender, Lane],
    same: Mapping[Contender, Contender],
    base: Lane,
    full: Contender,
    alone: Contender,
    rest: Contender,
) -> Switch:
    one, without, whole = (lanes[same.get(each, each)] for each in (alone, rest, full))
    by_itself = None if one.failed or one is base else between(ratios(*base.beside(one)))
    within = None if without.failed or whole.failed or without is whole else between(ratios(*without.beside(whole)))
    return Switch(
        option,
        value,
        by_itself,
        judged(by_itself) if by_itself else None,
        within,
        judged(within) if within else None,
    )


def _notes(here: Here, race: Race, drifts: Drifts, others: Any, defaults: Contender | None) -> list[str]:
    notes = told("the time and the memory of a step are the slowest's and the largest, drift is where it is farthest")
    notes += [*here.notes(), *([f"{here.moves_on()}"] if here.search.iterators else []), *drifts.notes, *race.notes]
    if defaults is None:
        notes.append(f'"{who.AS_IT_IS}" is what PyTorch does by default')
    if others.profile is not None or others.environment or others.command:
        notes.append("what the environment or the command line asks of torchturbo was left aside in the measurement")
    return notes
