"""What a search has found, as frozen data, and the profile that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torchturbo._benchmark.data import Between, Drift
from torchturbo._pictures import Pictured
from torchturbo._words import arguments
from torchturbo.hardware import Hardware
from torchturbo.profiles import Profile

Outcome = Literal["kept", "no faster", "drifts", "failed", "no effect", "no time"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One change that was tried on top of the best so far.

    Attributes:
        change: the options, by name.
        outcome: what came of it.
        speedup: the time of a step of the best so far, by its own; None where it was not timed.
        drift: how far its numbers are from the reference's; None where it was not run.
        rounds: how often it was timed.
        why: the reason of the outcome, as a sentence; empty where the numbers say it.
    """

    change: Mapping[str, object]
    outcome: Outcome
    speedup: Between | None
    drift: Drift | None
    rounds: int
    why: str


@dataclass(frozen=True, slots=True)
class Tuning(Pictured):
    """What `tune` has found.

    Attributes:
        options: the settings, by option; empty where nothing is surely faster than what is in force anyway.
        speedup: the time of a step as it is, by a step under these; None where there are none.
        before: seconds of a step as it is, the median.
        after: seconds of a step under these.
        drift: how far the numbers of these are from the reference's; None where there are none.
        noise: how far the reference is from itself when its sums are in another order.
        tolerance: how far they may be.
        reference: the profile whose numbers count as right.
        tried: all that was tried, in its order.
        rounds: how often the last comparison went around.
        step: the function.
        seconds: how long it took.
        budget: how long it could take.
        interrupted: whether Ctrl-C has ended it.
        hardware: the machine.
        torch: torch's version.
        date: the day, as ``2026-11-23``.
        notes: what there is to know, as sentences.
    """

    options: Mapping[str, object]
    speedup: Between | None
    before: float
    after: float
    drift: Drift | None
    noise: Drift | None
    tolerance: float
    reference: str
    tried: tuple[Tried, ...]
    rounds: int
    step: str
    seconds: float
    budget: float
    interrupted: bool
    hardware: Hardware
    torch: str
    date: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Tuning: {len(self.tried)} tried, {arguments(self.options) or 'none'}>"


class Tuned(Profile):
    """A profile that was found by measuring.

    Attributes:
        tuning: how it was found.
    """

    __slots__ = ("tuning",)

    tuning: Tuning

    @classmethod
    def of(cls, name: str, tuning: Tuning) -> Tuned:
        """The profile that a search has come to.

        Args:
            name: what it is called.
            tuning: the search.
        """
        gain, give = _words(tuning)
        made = cls._of(name, gain, give, tuning.options)
        assert isinstance(made, cls)
        object.__setattr__(made, "tuning", tuning)
        return made


def _words(tuning: Tuning) -> tuple[str, str]:
    if tuning.speedup is None or tuning.drift is None:
        return "Nothing: no setting that was tried is surely faster here.", "Nothing."
    largest = tuning.drift.largest
    gain = f"{tuning.step} took {tuning.speedup.value:.2f} times less time on {tuning.hardware.name}."
    give = "The same bits." if tuning.drift.same else f"Its numbers are {largest:.1e} from those of {tuning.reference}."
    return gain, give
