"""What a benchmark has found, as frozen data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torchturbo._pictures import Pictured
from torchturbo._told import of_that_name
from torchturbo.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Between:
    """A median, and the bounds between which the median of ever more rounds lies, 99 times in 100.

    Attributes:
        value: the median.
        low: the lower bound.
        high: the upper bound.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the numbers of one step are from those of the reference: 0.01 is one percent.

    Attributes:
        loss: the largest difference of the numbers that the step returns, or of its losses, relative to them.
        gradients: the length of the difference of all gradients together, by the length of the gradients.
        outputs: so too of what the outermost modules give.
        parameters: so too of the change that the optimizers make to the parameters.
        same: whether every number is the same to the bit.
        note: what could not be compared, and why, as a sentence; empty if there is nothing to say.

    Each is None where the step has no such thing.
    """

    loss: float | None
    gradients: float | None
    outputs: float | None
    parameters: float | None
    same: bool
    note: str = ""

    @property
    def largest(self) -> float | None:
        """The largest of loss, gradients and outputs, or of nothing else that of the parameters; or None."""
        known = [each for each in (self.loss, self.gradients, self.outputs) if each is not None]
        known = known or [each for each in (self.parameters,) if each is not None]
        # max() of a NaN depends on where it stands, and a NaN is as far off as anything can be.
        return float("nan") if any(each != each for each in known) else max(known, default=None)

    def within(self, tolerance: float) -> bool:
        """Whether a model that is trained so may be said to be trained as well.

        Args:
            tolerance: how large `largest` may be. What optimizers make of parameters may differ by ten times as much,
                and by 0.9 at the most: Adam turns the rounding of tiny gradients into whole steps.
        """
        if self.largest is None or not self.largest <= tolerance:
            return False
        return self.parameters is None or self.parameters <= min(10 * tolerance, 0.9)


@dataclass(frozen=True, slots=True)
class Timed:
    """One row: a step under some settings.

    Attributes:
        name: what it is called: ``"as it is"``, ``"plain"``, a profile's name, or ``"fast without autocast"``.
        settings: the profile by its name, and the options that beat it; empty for what is in force anyway.
        refused: what has no effect here, by option, and why.
        same_as: the row that comes to the same settings here, whose numbers these are; None for none.
        seconds: a step, the median.
        quartiles: half of the samples lie between these.
        speedup: the time of a step as it is, by this, round by round.
        verdict: ``"faster"``, ``"slower"`` or ``"no difference"``; None for the baseline, and for what has failed.
        rate: samples that go through the model in a second; None where the batch does not tell.
        memory: bytes of tensors that a step has at once at its peak, on the GPU that it uses or else on the CPU; None
            where that cannot be measured, which ``Comparison.notes`` explain.
        first_seconds: what the first step took longer than the others: compiling, choosing kernels.
        pays_after: steps after which the faster steps have made up for that; None where they never do.
        recompiles: how often torch compiled again after the first step.
        utilization: percent of the time in which the GPU was busy; None where there is none, or it does not tell.
        drift: how far its numbers are from the reference; None where it was not measured.
        failed: how it failed, as a sentence; None where it did not.
        samples: seconds of a step, round by round.
    """

    name: str
    settings: Mapping[str, object]
    refused: Mapping[str, str]
    same_as: str | None
    seconds: Between | None
    quartiles: tuple[float, float] | None
    speedup: Between | None
    verdict: str | None
    rate: float | None
    memory: int | None
    first_seconds: float | None
    pays_after: int | None
    recompiles: int
    utilization: float | None
    drift: Drift | None
    failed: str | None
    samples: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """What one option buys: by itself, and within all of them.

    Attributes:
        option: which.
        value: what it is set to.
        alone: the speed-up of a step with this option and no other, over a step as it is.
        alone_verdict: as `Timed.verdict`.
        within: the time of a step with all options but this one, by the time of a step with all.
        within_verdict: so too.
    """

    option: str
    value: object
    alone: Between | None
    alone_verdict: str | None
    within: Between | None
    within_verdict: str | None


@dataclass(frozen=True, slots=True)
class Comparison(Pictured):
    """What `benchmark` has found. ``comparison["fast"]`` is one row.

    Attributes:
        rows: every row, the baseline first.
        switches: what each option buys, if that was asked for.
        reference: what the drift is measured against.
        noise: how far the reference is from itself in another run, with its sums in another order; None if unmeasured.
        rounds: how often each was timed.
        steps: steps in each sample.
        batch: samples that go through the model in a step; None where that is not known.
        seconds: how long it all took.
        hardware: the machine.
        torch: torch's version.
        notes: what there is to know, as sentences.
    """

    rows: tuple[Timed, ...]
    switches: tuple[Switch, ...]
    reference: str
    noise: Drift | None
    rounds: int
    steps: int
    batch: int | None
    seconds: float
    hardware: Hardware
    torch: str
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Timed:
        """The row of that name.

        Raises:
            KeyError: there is none; the message names the near ones.
        """
        return of_that_name(self.rows, name, "row")

    def __iter__(self) -> Iterator[Timed]:
        return iter(self.rows)

    @property
    def fastest(self) -> Timed:
        """The row with the shortest step, of those that are surely faster than the baseline; else the baseline."""
        faster = [row for row in self.rows if row.verdict == "faster" and row.seconds is not None]
        return min(faster, key=lambda row: row.seconds.value if row.seconds else 0.0, default=self.rows[0])

    def __repr__(self) -> str:
        return f"<Comparison: {len(self.rows)} rows, {self.rounds} rounds>"
