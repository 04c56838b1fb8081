"""What a search for a data loader's settings has found, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torchturbo._benchmark.data import Between
from torchturbo._told import Told
from torchturbo._words import arguments
from torchturbo.hardware import Hardware

Outcome = Literal["chosen", "as fast", "slower", "too large", "failed", "no time"]


@dataclass(frozen=True, slots=True)
class TriedLoader:
    """Settings that were tried.

    Attributes:
        options: of the `DataLoader` call.
        outcome: what came of it.
        rate: batches a second once the first ones have come, the median of the rounds; None where it was not timed.
        startup: seconds from the beginning of an epoch to its first batch, the median.
        epoch: seconds of one epoch of yours, with what a step takes, if that was said.
        memory: bytes of this process and its workers together, at the most.
        samples: seconds of an epoch, round by round.
        why: the reason of the outcome, as a sentence; empty where the numbers say it.
    """

    options: Mapping[str, Any]
    outcome: Outcome
    rate: Between | None
    startup: float | None
    epoch: float | None
    memory: int | None
    samples: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory from epoch to epoch, with the workers kept.

    Attributes:
        memory: bytes of this process and its workers together, after each epoch.
        batches: of each of these epochs.
        each: bytes that came with an epoch (the median), if it grew in every one; else 0.
    """

    memory: tuple[int, ...]
    batches: int
    each: int


@dataclass(frozen=True, slots=True)
class LoaderTuning(Told):
    """What `tune_loader` has found: ``DataLoader(dataset, batch_size=..., **found.best)``.

    Attributes:
        best: keyword arguments for `DataLoader`.
        why: why these, as sentences.
        baseline: the settings that there were.
        speedup: the time of an epoch with those, by the time with the best, round by round; None for the same settings.
        tried: all that was tried, in its order.
        growth: memory from epoch to epoch with the best; None where there was no time to look.
        batches: of an epoch.
        step_seconds: what a step takes; None where that was not said.
        dataset: what it loads.
        seconds: how long the search took.
        budget: how long it could take.
        interrupted: whether Ctrl-C has ended it.
        hardware: the machine.
        torch: torch's version.
        notes: what there is to know, as sentences.
    """

    best: Mapping[str, Any]
    why: str
    baseline: Mapping[str, Any]
    speedup: Between | None
    tried: tuple[TriedLoader, ...]
    growth: Growth | None
    batches: int
    step_seconds: float | None
    dataset: str
    seconds: float
    budget: float
    interrupted: bool
    hardware: Hardware
    torch: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<LoaderTuning: {len(self.tried)} tried, {arguments(self.best)}>"
