"""The words of a check, without their layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchturbo._replay.record import place
from torchturbo._words import arguments, some

if TYPE_CHECKING:
    from torchturbo._reproducible.data import Difference, Price, Reproduction


def difference(its: Difference) -> str:
    """A difference as a sentence without its full stop."""
    told = [place(its.kind, its.name, its.part, its.call, its.step)]
    if its.dtype is not None:
        told.append(f"{its.dtype} {list(its.shape)}")
    if its.largest is not None and not math.isnan(its.largest):
        told.append(f"largest difference {its.largest:.3g}")
    notes = [its.note] if its.note else []
    if its.streams:
        notes.append(f"by then {' and '.join(its.streams)} stood elsewhere than in run 1")
    return ", ".join(told) + (f" ({'; '.join(notes)})" if notes else "")


def settings(found: Reproduction) -> str:
    """What a function ran under."""
    return f"under {arguments(found.settings)}" if found.settings else "as it is"


def heading(found: Reproduction) -> str:
    """What came out."""
    where = "each in a fresh process" if found.fresh else "in this process, from the same state"
    verdict = "Identical to the bit" if found.identical else "Different"
    return f"{verdict}: {found.runs} runs {where}, {settings(found)}."


def what(found: Reproduction) -> Iterator[str]:
    """What was compared, or what differs first."""
    if found.difference is not None:
        yield f"The first difference, in run {found.difference.run}: {found.difference}."
    modules, steps = some(len(found.modules), "module"), some(found.steps, "optimizer step")
    compared = f"{found.compared} tensors" if found.compared else f"No tensor, and {found.values} other values"
    yield f"{compared} of a run were compared: {modules}, {steps}, what was returned and what was left."


def price(its: Price | None, unpriced: str | None) -> str:
    """What determinism costs."""
    if its is None:
        return f"Its price was not measured: {unpriced}."
    between = f"{its.low:.2f} to {its.high:.2f}, {its.rounds} rounds in turn, {its.seconds * 1e3:.3g} ms a run"
    if its.is_noise:
        return f'The profile "reproducible" costs no difference that can be told from noise here (ratio {between}).'
    return f'Under the profile "reproducible" a run takes {its.ratio:.2f} times as long ({between}).'
