"""The law of seeds: the newest block that stands has its own stream, and all others go on where they stood."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tests.laws.around import NOTHING, BlockMaker
from tests.laws.look import differences, look
from tests.laws.violation import holds
from torchturbo import turbo

Action = tuple[str, int]
"""``open`` a block with a seed, ``close`` the one at a place, ``fail`` in it, ``draw`` so often, ``seed`` by hand."""

Drawn = tuple[float, float, float, float]


def ours(seed: int) -> Any:
    """A block of torchturbo's that does nothing but seed."""
    return turbo(NOTHING, seed=seed)


def draw() -> Drawn:
    """A number of every stream that all code shares; of NumPy one that keeps a second one back."""
    return random.random(), float(np.random.normal()), float(np.random.rand()), torch.rand(()).item()


def seed_by_hand(seed: int) -> None:
    """What people write."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Streams:
    """Streams of one block alone: generators of its own, which nobody else draws from."""

    def __init__(self, seed: int | None) -> None:
        self.python, self.numpy, self.torch = random.Random(), np.random.RandomState(), torch.Generator()
        if seed is not None:
            self.seed(seed)
        else:
            self.python.setstate(random.getstate())
            self.numpy.set_state(np.random.get_state())
            self.torch.set_state(torch.get_rng_state())

    def seed(self, seed: int) -> None:
        """Starts them afresh."""
        self.python.seed(seed)
        self.numpy.seed(seed)
        self.torch.manual_seed(seed)

    def draw(self) -> Drawn:
        """As the module's `draw` does."""
        numbers = self.python.random(), float(self.numpy.normal()), float(self.numpy.rand())
        return *numbers, torch.rand((), generator=self.torch).item()


def streams_hold(actions: Sequence[Action], make: BlockMaker = ours) -> None:
    """Plays actions, then closes what is still open; each draw is the one that the block's own stream has next.

    Args:
        actions: what to do.
        make: makes a block from a seed.

    Raises:
        Violation: a draw is another one, or something is left when all have left.
    """
    beneath = Streams(None)
    before = look()
    opened: list[tuple[Any, Streams]] = []

    def check(when: str) -> None:
        expected, found = (opened[-1][1] if opened else beneath).draw(), draw()
        holds(found == expected, f"{when}, a draw gives {found}, and the stream in force has {expected} next")

    for number, (act, value) in enumerate(actions):
        when = f"after {act} {value} (action {number})"
        if act == "open":
            block = make(value)
            block.__enter__()
            opened.append((block, Streams(value)))
        elif act in ("close", "fail") and opened:
            block, _ = opened.pop(value % len(opened))
            error = KeyError("planted") if act == "fail" else None
            block.__exit__(error and type(error), error, None)
        elif act == "seed" and opened:  # outside it would be for good
            seed_by_hand(value)
            opened[-1][1].seed(value)
        elif act == "draw" and opened:
            check(when)
    while opened:
        opened.pop()[0].__exit__(None, None, None)
    found = differences(before, look())
    holds(not found, f"after {actions} something is left: {found:.500}")
