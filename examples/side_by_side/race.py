"""Several trainings in turn on one machine, so that what else it does falls on all of them alike."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.gpt.data import Batch, Text, sample
from examples.gpt.model import GPT, Size
from examples.gpt.train import make_optimizer, mean_loss, step
from torchturbo import turbo

STEPS_PER_ROUND = 3
LOOKS = 5
"""How often the held-out loss is taken after the start, in about equal distances."""
HELD_OUT_BATCHES = 4

Around = Callable[[], AbstractContextManager[object]]


class Arm:
    """One training: a model with all that it needs, and everything that was seen of it.

    Attributes:
        label: what a table calls it.
        device: where it runs.
        model: its own copy of the model that it starts from.
        start: a hash of the initial weights.
        warm_up: seconds of each step of the first round, which no figure counts.
        seconds: seconds of each step after that.
        rounds: seconds of each whole round after the first, with the entry and exit of its block.
        losses: the training loss before each step, from the first.
        held_out: the held-out loss, each with the number of steps before it.
    """

    def __init__(self, label: str, model: GPT, batch_seed: int, around: Around) -> None:
        self.label = label
        self.device = next(model.parameters()).device
        self.model = copy.deepcopy(model)
        self.start = hashlib.sha256(self.weights().cpu().numpy().tobytes()).hexdigest()
        self.warm_up: list[float] = []
        self.seconds: list[float] = []
        self.rounds: list[float] = []
        self.losses: list[float] = []
        self.held_out: list[tuple[int, float]] = []
        self._around = around
        self._optimizer = make_optimizer(self.model)
        self._generator = torch.Generator().manual_seed(batch_seed)
        self._fed = hashlib.sha256()

    @property
    def fed(self) -> str:
        """A hash of every batch that this arm was trained on, in order."""
        return self._fed.hexdigest()

    def weights(self) -> Tensor:
        """All parameters, one after another."""
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def run(self, text: Text, steps: int) -> None:
        """One round: `steps` steps in one block."""
        size = self.model.size
        batches = [sample(text.training, size.batch, size.context, self._generator) for _ in range(steps)]
        for batch in batches:
            self._fed.update(batch.inputs.numpy().tobytes())
        here = [batch.to(self.device) for batch in batches]
        seconds = []
        entered = time.perf_counter()
        with self._around():
            for batch in here:
                began = time.perf_counter()
                self.losses.append(step(self.model, self._optimizer, batch))
                self._finish()
                seconds.append(time.perf_counter() - began)
        whole = time.perf_counter() - entered
        if self.warm_up:
            self.seconds.extend(seconds)
            self.rounds.append(whole)
        else:
            self.warm_up.extend(seconds)

    def _finish(self) -> None:
        # A GPU works on while Python goes ahead; a CPU is done when the call returns.
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def look(self, held_out: Sequence[Batch]) -> None:
        """Takes the held-out loss: in plain float32 for every arm, as it is the weights that are compared."""
        self.held_out.append((len(self.losses), mean_loss(self.model, [batch.to(self.device) for batch in held_out])))


@dataclass(frozen=True)
class Race:
    """What is compared: plain float32, the same under turbo, and what other batches would have made of it."""

    plain: Arm
    turbo: Arm
    other: Arm
    first_weights: Tensor

    @property
    def arms(self) -> tuple[Arm, Arm, Arm]:
        """All three, in the order of the table."""
        return self.plain, self.turbo, self.other


def line_up(size: Size, seed: int, device: str = "cpu", profile: str = "fast") -> Race:
    """Three arms with the same initial weights, the first two to be fed the same batches."""
    torch.manual_seed(seed)
    model = GPT(size).to(device)
    plain = Arm("float32", model, seed, nullcontext)
    return Race(
        plain,
        turbo=Arm(f'turbo("{profile}")', model, seed, lambda: turbo(profile)),
        other=Arm("float32, other batches", model, seed + 1, nullcontext),
        first_weights=plain.weights(),
    )


def run(race: Race, text: Text, steps: int, watch: Callable[[Arm], None]) -> None:
    """Trains all arms for `steps` steps, a few each in turn, and calls `watch` after each arm's turn."""
    size = race.plain.model.size
    # Fixed, so that runs with different seeds are judged by the same text.
    judge = torch.Generator().manual_seed(0)
    held_out = [sample(text.held_out, size.batch, size.context, judge) for _ in range(HELD_OUT_BATCHES)]
    for arm in race.arms:
        arm.look(held_out)
    looks = [steps * look // LOOKS for look in range(1, LOOKS + 1)]
    for number, begin in enumerate(range(0, steps, STEPS_PER_ROUND)):
        count = min(STEPS_PER_ROUND, steps - begin)
        # Who goes first changes, as going second means to find the caches as the first left them.
        pair = (race.plain, race.turbo) if number % 2 == 0 else (race.turbo, race.plain)
        for arm in (*pair, race.other):
            arm.run(text, count)
            watch(arm)
        if any(begin < look <= begin + count for look in looks):
            for arm in race.arms:
                arm.look(held_out)
