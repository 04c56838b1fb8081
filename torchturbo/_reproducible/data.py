"""What a check has found, as frozen data, and the forms it takes: a dictionary, JSON and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchturbo._told import Told


@dataclass(frozen=True, slots=True)
class Difference:
    """The first value, in the order of the program, that was not the same to the bit in two runs.

    Attributes:
        run: the run in which it was another one than in run 1, counted from 1.
        kind: ``"start"`` (weights before the first call), ``"input"`` (of the outermost module), ``"output"`` (of any
            module), ``"gradient"`` (at a step), ``"parameter"`` (after it), ``"end"`` (what a run has left),
            ``"returned"``, or ``"order"`` (the runs did not do the same things).
        name: the module or the tensor.
        part: where it stands in what the module took or gave, or in what was returned, as ``[0]`` or ``.logits``.
        call: the call of the module, counted from 1; 0 where none is meant.
        step: the optimizer step that it belongs to, counted from 1.
        dtype: of the tensor; None for what is no tensor.
        shape: of the tensor.
        largest: the largest absolute difference; 0.0 where only -0.0 stands for 0.0, NaN where one of the two is NaN,
            and None where it is not known.
        streams: random streams that stood elsewhere by then than in run 1, and had been drawn from.
        note: what else there is to know, as a sentence, or an empty text.
    """

    run: int
    kind: str
    name: str
    part: str
    call: int
    step: int
    dtype: str | None
    shape: tuple[int, ...]
    largest: float | None
    streams: tuple[str, ...]
    note: str

    def __str__(self) -> str:
        from torchturbo._reproducible.words import difference

        return difference(self)


@dataclass(frozen=True, slots=True)
class Price:
    """What determinism costs: a run under the profile ``"reproducible"``, beside one as it is, in turn.

    Attributes:
        ratio: the median of the ratios of their times, round by round; 1.2 is a fifth more time.
        low: the median of ever more rounds lies above this, 19 times in 20 together with `high`.
        high: and below this.
        seconds: the median of a run as it is.
        rounds: how many were timed.
    """

    ratio: float
    low: float
    high: float
    seconds: float
    rounds: int

    @property
    def is_noise(self) -> bool:
        """Whether no difference can be told from the noise."""
        return self.low <= 1.0 <= self.high


@dataclass(frozen=True, slots=True)
class Reproduction(Told):
    """What `check_reproducible` has found. True where all runs were identical.

    Attributes:
        identical: whether every value that was compared was the same to the bit in all runs.
        difference: the first that was not, or None.
        advice: what to do, in plain words.
        price: what determinism costs here, or None.
        unpriced: why the price is not known, or None.
        runs: how often the function ran.
        fresh: whether each run had a process of its own.
        settings: the profile and options that it ran under.
        compared: tensors compared in each run.
        values: numbers, texts and arrays compared in each run.
        steps: optimizer steps of a run.
        modules: modules that were called, by name.
        notes: what could not be put back or compared, as sentences.
    """

    identical: bool
    difference: Difference | None
    advice: tuple[str, ...]
    price: Price | None
    unpriced: str | None
    runs: int
    fresh: bool
    settings: Mapping[str, object]
    compared: int
    values: int
    steps: int
    modules: tuple[str, ...]
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.identical

    def to_dict(self) -> dict[str, Any]:
        """What was found as plain dictionaries, lists, strings and numbers, for JSON; NaN is a string."""
        told = Told.to_dict(self)  # Python has no `super()` in dataclasses with slots before 3.14
        told["sentence"] = str(self.difference) if self.difference else None
        return told

    def __repr__(self) -> str:
        return f"<Reproduction: {'identical' if self.identical else 'different'} in {self.runs} runs>"
