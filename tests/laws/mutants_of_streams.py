"""Blocks with a seed that are wrong in one way each, over a plain one that is right."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import torch


class Plain:
    """Keeps what it found, and hands it on to the next newer block where it leaves from beneath one."""

    opened: ClassVar[list[Any]] = []

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def read(self) -> dict[str, Any]:
        """Where all streams stand."""
        tracker = torch.cuda._lazy_seed_tracker, torch.xpu._lazy_seed_tracker
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "queues": [vars(each).copy() for each in tracker],
        }

    def write(self, found: dict[str, Any]) -> None:
        """Puts them there."""
        random.setstate(found["python"])
        np.random.set_state(found["numpy"])
        torch.set_rng_state(found["torch"])
        for module, queued in zip((torch.cuda, torch.xpu), found["queues"], strict=True):
            vars(module._lazy_seed_tracker).update(queued)

    def start(self) -> None:
        """Starts them afresh."""
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)

    def __enter__(self) -> None:
        self.found = self.read()
        self.opened.append(self)
        self.start()

    def __exit__(self, *error: object) -> None:
        at = self.opened.index(self)
        del self.opened[at]
        if at < len(self.opened):
            self.opened[at].found = self.found
        else:
            self.write(self.found)


class Keeps(Plain):
    """It seeds, and puts nothing back."""

    def write(self, found: dict[str, Any]) -> None:
        """Nothing."""


class _LeavesOut(Plain):
    stream: str

    def write(self, found: dict[str, Any]) -> None:
        """All but one."""
        super().write(found | {self.stream: self.read()[self.stream]})


class LeavesOutPython(_LeavesOut):
    """It does not put Python's stream back."""

    stream = "python"


class LeavesOutNumPy(_LeavesOut):
    """It does not put NumPy's stream back."""

    stream = "numpy"


class LeavesOutTorch(_LeavesOut):
    """It does not put torch's stream back."""

    stream = "torch"


class LeavesOutQueues(_LeavesOut):
    """It leaves the seeds that it has queued for devices that have not started, as `torch.random.fork_rng` does."""

    stream = "queues"


class InOrderOnly(Plain):
    """It puts back what it found, whoever is open on top of it."""

    def __exit__(self, *error: object) -> None:
        self.opened.remove(self)
        self.write(self.found)


class HandsOnItsOwn(Plain):
    """The next newer block goes on standing on the stream of one that has left."""

    def __exit__(self, *error: object) -> None:
        at = self.opened.index(self)
        del self.opened[at]
        if at == len(self.opened):
            self.write(self.found)


class StaysAfterErrors(Plain):
    """It puts nothing back where its body raised."""

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            super().__exit__(*error)
        else:
            self.opened.remove(self)


class ForgetsTheSecondNormal(Plain):
    """It forgets that NumPy keeps back every second number of a normal distribution."""

    def read(self) -> dict[str, Any]:
        """Without it."""
        found = super().read()
        return found | {"numpy": found["numpy"][:3]}


class SeedsOnlyTorch(Plain):
    """It starts torch's stream alone."""

    def start(self) -> None:
        """One of them."""
        torch.manual_seed(self._seed)


class SeedsAgain(Plain):
    """A block that leaves starts the stream of the one beneath afresh."""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.opened:
            self.opened[-1].start()


MUTANTS = (
    Keeps,
    LeavesOutPython,
    LeavesOutNumPy,
    LeavesOutTorch,
    LeavesOutQueues,
    InOrderOnly,
    HandsOnItsOwn,
    StaysAfterErrors,
    ForgetsTheSecondNormal,
    SeedsOnlyTorch,
    SeedsAgain,
)
