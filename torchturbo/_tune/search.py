"""The search: one change after another on top of the best so far, each within the tolerance before it is timed."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import torch

from torchturbo import hardware
from torchturbo._benchmark import contenders as who
from torchturbo._benchmark.contenders import Contender
from torchturbo._benchmark.data import Between, Drift
from torchturbo._benchmark.numbers import Drifts, refuse_shards_in_float64
from torchturbo._benchmark.race import Lane, Race
from torchturbo._benchmark.ratios import FEWEST, between, judged, ratios
from torchturbo._replay.here import Here
from torchturbo._together import agreed, several, told
from torchturbo._tune.data import Outcome, Tried, Tuning
from torchturbo._tune.space import Change, Uses, changes
from torchturbo._turbo import turbo
from torchturbo._words import arguments
from torchturbo.errors import TargetError, in_a_line
from torchturbo.profiles import Profile
from torchturbo.regions.loading import made

_LAST = 0.3
"""The share of the budget that is kept for the comparison at the end."""
_FEW, _MANY = 3, 31
"""Rounds for one change: fewer say nothing, and what is not clear after more is too small to matter."""
_LIKELY = 0.9
"""How sure the search is before it goes on; what it comes to is measured once more."""
_COMPILING = 0.2
"""The share of the budget that has to be left before something is compiled, which nobody can interrupt."""


def search(
    begin: Callable[[], Here],
    tolerance: float,
    budget: float,
    also: Sequence[Profile | Change],
    *,
    reference: str,
    step: str,
    tell: Callable[[str], None],
) -> Tuning:
    """What `torchturbo.tune` does, once its arguments have been looked at."""
    began = time.perf_counter()
    with who.by_the_code_alone():
        for change in also:
            who.only(change)  # so that what is wrong is refused before anything runs
        here = begin()
        base, right = who.baseline(), who.reference(reference)
        refuse_shards_in_float64(here, right)
        tell("what the step uses")
        with _counting_loaders() as loaders:
            first = here.find(base.around)
        drifts = Drifts(here, right, first)
        images = any(event.kind == "input" and len(event.shape) in (4, 5) for event in first.events)
        uses = Uses(loaders=bool(loaders()), images=images, optimizers=bool(first.steps))
        planned: list[Change] = [*also, *agreed(list(changes(hardware.detect(), uses)))]
        climb = Climb(Race(here, [base]), drifts, tolerance, began, budget, tell)
        try:
            climb.begin()
            climb.climb(planned)
        except KeyboardInterrupt:
            if several():  # the others may be in the middle of a step, and wait for this one
                raise
            climb.interrupted = True
        return climb.outcome(here, step, reference)


@contextmanager
def _counting_loaders() -> Iterator[Callable[[], int]]:
    """A block that counts the data loaders that are made in it; they get what they get without it."""
    found: list[int] = []
    with turbo(Profile("no profile"), num_workers=0):
        yield lambda: found[0]
        found.append(made())


class Climb:
    """Goes from the settings in force to faster ones.

    Args:
        race: times them; its first lane is what is in force.
        drifts: holds them against the reference.
        tolerance: how far they may be.
        began: when the search did, by `time.perf_counter`.
        budget: seconds that it may take.
        tell: of what is going on.

    Attributes:
        tried: what was tried, in its order.
        interrupted: whether Ctrl-C has ended it.
    """

    def __init__(
        self, race: Race, drifts: Drifts, tolerance: float, began: float, budget: float, tell: Callable[[str], None]
    ) -> None:
        self.tried: list[Tried] = []
        self.interrupted = False
        self._race, self._drifts, self._tell = race, drifts, tell
        self._tolerance, self._began, self._budget = tolerance, began, budget
        self._base = race.lanes[0]
        self._chosen: list[tuple[dict[str, object], Lane, Drift | None]] = [({}, self._base, None)]
        """What was the best, oldest first; each with its options, and how far its numbers are."""
        self._noise: Drift | None = None

    def _left(self) -> float:
        """Seconds of the budget that are left; of ranks that measure together, by the clock of the first."""
        return agreed(self._budget - (time.perf_counter() - self._began))

    def begin(self) -> None:
        """Looks at what is in force, and at how far the reference is from itself.

        Raises:
            TargetError: nothing of the step can be compared.
        """
        self._tell("the step as it is")
        self._race.warm_up(self._base)
        self._noise = self._drifts.noise()
        if self._noise.largest is None:
            raise TargetError(
                "nothing of the step could be compared, so that nobody can say whether settings leave its numbers "
                "within the tolerance: it returned no number, called no module and took no gradient. Return the loss"
            )

    def climb(self, planned: Sequence[Change]) -> None:
        """Tries one change after another, and compares what it has come to with the beginning.

        Args:
            planned: the changes.
        """
        for number, change in enumerate(planned):
            options, best, _ = self._chosen[-1]
            left = self._left()
            self._tell(f"{arguments(change)} ({number + 1} of {len(planned)}, {max(0.0, left):.0f} s left)")
            contender = who.only({**options, **change})
            if (idle := agreed(_idle(change, contender, best.contender))) is not None:
                self._note(change, "no effect", why=idle)
                continue
            spare = left - _LAST * self._budget
            if spare <= 0 or ("compile" in change and spare < _COMPILING * self._budget):
                self._note(change, "no time", why=f"{max(0.0, left):.0f} s of the budget were left")
                continue
            self._try(change, contender, best, spare / (len(planned) - number))
        self._last()

    def _try(self, change: Change, contender: Contender, best: Lane, share: float) -> None:
        drift = self._drift(change, contender)
        if drift is None:
            return
        if not drift.within(self._tolerance):
            self._note(change, "drifts", drift=drift)
            return
        lane = self._race.add(contender)
        self._race.warm_up(lane)
        faster = lane.failed is None and self._is_faster(lane, best, share)
        if lane.failed is not None:
            self._note(change, "failed", drift=drift, why=in_a_line(lane.failed))
            self._race.lanes.remove(lane)
            _make_room()
            return
        found = between(ratios(*best.beside(lane)), _LIKELY)
        self._note(change, "kept" if faster else "no faster", found, drift, len(lane.samples))
        if faster:
            self._chosen.append(({**self._chosen[-1][0], **change}, lane, drift))

    def _drift(self, change: Change, contender: Contender) -> Drift | None:
        try:
            return self._drifts.of(contender)
        except Exception as error:
            self._note(change, "failed", why=in_a_line(error))
            _make_room()
            return None

    def _is_faster(self, lane: Lane, best: Lane, share: float) -> bool:
        """Whether a lane is likely faster than the best so far; as few rounds as tell it, in a share of the time."""
        began = time.perf_counter()
        for number in range(1, _MANY + 1):
            self._race.round((best, lane))
            if lane.failed is not None:
                return False
            if number < _FEW:
                continue
            its = between(ratios(*best.beside(lane)), _LIKELY)
            # The bounds of a few samples are these themselves: all on one side is as clear as it gets.
            if its.high < 1 or (its.low > 1 and (number >= 5 or its.low > 1.1)):
                break
            if number >= 5 and agreed(time.perf_counter() - began > share):
                break
        return its.low > 1 and judged(Between(its.value, its.low, its.high)) == "faster"

    def _last(self) -> None:
        """Compares what the search has come to with the beginning, and goes back where it is no faster after all."""
        while len(self._chosen) > 1:
            lane = self._chosen[-1][1]
            while lane.failed is None:
                compared = len(self._base.beside(lane)[0])
                if compared >= FEWEST and (compared >= 4 * _MANY or self._left() <= 0):
                    break
                self._tell(f"the best beside the step as it is, round {compared + 1}")
                self._race.round((self._base, lane))
            if lane.failed is None and judged(between(ratios(*self._base.beside(lane)))) == "faster":
                return
            self._chosen.pop()

    def _note(
        self,
        change: Change,
        outcome: Outcome,
        speedup: Between | None = None,
        drift: Drift | None = None,
        rounds: int = 0,
        why: str = "",
    ) -> None:
        self.tried.append(Tried(dict(change), outcome, speedup, drift, rounds, why))

    def outcome(self, here: Here, step: str, reference: str) -> Tuning:
        """What has been found.

        Args:
            here: the step.
            step: what it is called.
            reference: the profile whose numbers count as right.
        """
        options, lane, drift = self._chosen[-1]
        over, under = self._base.beside(lane)
        found = lane is not self._base and bool(over)
        base = list(self._base.samples.values()) or [self._base.first or 0.0]
        return Tuning(
            options=options if found else {},
            speedup=between(ratios(over, under)) if found else None,
            before=statistics.median(over if found else base),
            after=statistics.median(under if found else base),
            drift=drift if found else None,
            noise=self._noise,
            tolerance=self._tolerance,
            reference=reference,
            tried=tuple(self.tried),
            rounds=len(over) if found else len(self._base.samples),
            step=step,
            seconds=time.perf_counter() - self._began,
            budget=self._budget,
            interrupted=self.interrupted,
            hardware=hardware.detect(),
            torch=str(torch.__version__),
            date=datetime.now(UTC).date().isoformat(),
            notes=(*told("times are the slowest one's, and drift is where it is farthest"), *here.notes()),
        )


def _idle(change: Change, contender: Contender, best: Contender) -> str | None:
    """Why a change has no effect here; None where it has one."""
    about = _of(change)
    if contender.values != best.values and not about <= contender.refused.keys():
        return None
    why = "; ".join(dict.fromkeys(why for name, why in contender.refused.items() if name in about))
    return why or "it is in force already"


def _of(change: Change) -> set[str]:
    """The settings that a change is about, by name."""
    plan = who.only(change).plan
    return {decision.name for decision in plan.decisions} if plan else set()


def _make_room() -> None:
    """Lets go of what a candidate that ran out of memory has held."""
    gc.collect()
    for module in (torch.cuda, torch.xpu):
        if module.is_available() and module.is_initialized():
            module.empty_cache()
