"""The numbers of a step under its contenders, each beside those of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import isnan

import torch

from torchturbo._benchmark import contenders as who
from torchturbo._benchmark.contenders import Contender
from torchturbo._benchmark.data import Drift
from torchturbo._benchmark.drift import drift_of
from torchturbo._replay.float64 import in_float64
from torchturbo._replay.here import Here
from torchturbo._replay.record import Record
from torchturbo._together import agreed
from torchturbo.errors import RanksError
from torchturbo.regions._compiled import compiled_anew
from torchturbo.regions._inductor import drawing_as_eager
from torchturbo.regions._sharded import is_sharded


class Drifts:
    """How far each contender's numbers are from the reference's: of several ranks, where they are farthest.

    Args:
        here: the step.
        right: the reference.
        first: the step as it is.

    Attributes:
        batch: samples that go through the model in a step, on all ranks; None where that is not known.
        notes: what the reference could not do, as sentences.
    """

    def __init__(self, here: Here, right: Contender, first: Record) -> None:
        self._here = here
        self._right = right
        self._draws = first.draws
        self._reference: Record | None = None
        self.batch = agreed(_batch(first), _in_all)
        self.notes: list[str] = []

    @property
    def reference(self) -> Record:
        """The reference's run."""
        if self._reference is None:
            self._reference = self._run(self._right)
        return self._reference

    def of(self, contender: Contender) -> Drift:
        """How far a contender's numbers are from the reference's."""
        reference = self.reference
        record = self._run(contender)
        drift = drift_of(record, reference)
        waits = contender.values.get("accumulate", 1)
        if waits != 1:
            note = f"accumulate={waits} divides gradients and has steps wait: they and parameters were not compared"
            drift = replace(drift, gradients=None, parameters=None, note=note)
        return agreed(drift, farthest)

    def noise(self) -> Drift:
        """How far the reference is from itself: in another run, whose sums are in another order; on a GPU in two."""
        threads = torch.get_num_threads()
        settings = dict(self._right.settings)
        shown = str(settings.pop("profile"))
        other = who.contender(shown, {**settings, "num_threads": 1 if threads > 1 else 2})
        other.wide = self._right.wide
        # Atomic adds of a GPU come in another order each time.
        again = [other, self._right] if torch.cuda.is_available() else [other]
        return agreed(farthest([drift_of(self._run(each), self.reference) for each in again]), farthest)

    def _run(self, contender: Contender) -> Record:
        compiles = contender.values.get("compile") not in (None, False)
        # Inductor draws other random numbers than eager code, and masks of dropout would be all that is compared.
        drawn_alike = (_as_eager_code_draws if compiles and self._draws else nullcontext)()
        if not contender.wide:
            with drawn_alike:
                return self._here.watched(contender.around)
        try:
            return self._here.watched(self._widened(contender))
        except Exception as error:
            error.add_note(
                'torchturbo: raised while the step ran in float64 for reference="float64"; reference="exact" compares '
                "with the step in float32"
            )
            raise

    @contextmanager
    def _widened(self, contender: Contender) -> Iterator[None]:
        with contender.around, in_float64(self._here.keeper) as mode:
            yield
        for name in sorted(mode.left):
            note = f"the reference has computed {name} in float32, or with other random numbers, as torch has it"
            if note not in self.notes:
                self.notes.append(note)


def refuse_shards_in_float64(here: Here, right: Contender) -> None:
    """Raises where the reference is computed in float64, and parameters are shards, whose type FSDP2 has fixed.

    Args:
        here: the step.
        right: the reference.

    Raises:
        RanksError: says what to write instead.
    """
    if right.wide and any(is_sharded(each.tensor) for each in here.keeper.tensors.values()):
        raise RanksError(
            'reference="float64" computes with parameters in float64, and FSDP2 gathers its shards in the type that '
            'they had when it was made: compare with reference="exact", or measure it under DistributedDataParallel'
        )


def farthest(drifts: Sequence[Drift]) -> Drift:
    """The largest of some drifts; one of which nothing is known is larger than all.

    Args:
        drifts: at least one.
    """
    return max(drifts, key=_order)


def _order(drift: Drift) -> float:
    return float("inf") if drift.largest is None or isnan(drift.largest) else drift.largest


def _in_all(batches: Sequence[int | None]) -> int | None:
    known = [each for each in batches if each is not None]
    return sum(known) if len(known) == len(batches) else None


@contextmanager
def _as_eager_code_draws() -> Iterator[None]:
    with compiled_anew(), drawing_as_eager():
        yield


def _batch(record: Record) -> int | None:
    """How many samples go through the first of the outermost modules, in all its calls."""
    inputs = [event for event in record.events if event.kind == "input" and event.shape]
    calls = {event.call: event.shape[0] for event in reversed(inputs) if event.name == inputs[0].name}
    return sum(calls.values()) or None
