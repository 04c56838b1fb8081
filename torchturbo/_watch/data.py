"""What was seen of loops, as frozen data that shows itself."""

from __future__ import annotations

from dataclasses import dataclass

from torchturbo._told import Told
from torchturbo._watch.machine import OfMachine


@dataclass(frozen=True, slots=True)
class Loop:
    """How far a loop is.

    Attributes:
        name: what it goes through.
        steps: batches that it has had.
        of: batches that there are; None where nobody knows.
        seconds: since it began.
        steps_per_second: of late; so too what follows.
        samples_per_second: None where batches do not tell.
        tokens_per_second: None where batches do not tell.
        waiting: the share of the time in which it waited for its own data, 0 to 1.
    """

    name: str
    steps: int
    of: int | None
    seconds: float
    steps_per_second: float
    samples_per_second: float | None
    tokens_per_second: float | None
    waiting: float


@dataclass(frozen=True, slots=True, eq=False)
class Seen(Told):
    """What was seen of a loop and of those in it.

    Attributes:
        loops: the loop, and those within it that are open.
        seconds: since the outermost began.
        waiting: the share of the time in which the thread waited for data of any loop, 0 to 1, of late.
        computing: of all that is neither waiting nor an optimizer's step.
        optimizer: of optimizers' steps.
        utilization: how busy the GPU was of late, 0 to 1; without one, the share that did not wait for data.
        machine: what the machine does.
        recompiles: graphs that torch compiled after the first step.
        scale: what gradients are multiplied by in fp16; None where nothing is scaled.
        skipped_steps: steps that were left out as gradients overflowed; None where nothing is scaled.
        over: whether the outermost loop is over, and this is about the whole of it.
    """

    loops: tuple[Loop, ...]
    seconds: float
    waiting: float
    computing: float
    optimizer: float
    utilization: float
    machine: OfMachine
    recompiles: int
    scale: float | None
    skipped_steps: int | None
    over: bool
