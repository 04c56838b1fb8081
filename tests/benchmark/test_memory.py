"""The peak of a step's memory, against steps whose peak is known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torchturbo import benchmark, turbo
from torchturbo._replay.here import Here
from torchturbo._replay.memory import Allocations

KIB = 1024


def _peak(step: Any, **options: Any) -> int:
    here = Here(step)
    block = turbo("exact", **options)
    here.find(block)
    found = here.memory(block)
    assert here.memory(block) == found, "it is the same in each run"
    return found


def test_tensors_that_come_and_go() -> None:
    def step() -> None:
        one = torch.empty(KIB, dtype=torch.uint8)
        two = torch.empty(3 * KIB, dtype=torch.uint8)
        del one
        torch.empty(2 * KIB, dtype=torch.uint8)
        del two
        torch.empty(4 * KIB, dtype=torch.uint8)

    assert _peak(step) == 5 * KIB


def test_what_it_begins_with_counts_once_wherever_it_is_seen() -> None:
    batch = torch.zeros(2 * KIB, dtype=torch.uint8)
    first_half = batch[:KIB]

    def step() -> int:
        return len(batch) + len(first_half) + len(torch.empty(KIB, dtype=torch.uint8))

    assert _peak(step) == 3 * KIB


@pytest.mark.parametrize("begun", [False, True])
def test_a_step_of_training(begun: bool) -> None:
    """What is there: weights, their sums, the batch. What comes: the product, its gradient, and that of the weights."""
    weight = nn.Parameter(torch.ones(64, 64))
    batch = torch.ones(8, 64)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, foreach=False)

    def step() -> None:
        optimizer.zero_grad()
        out = batch @ weight
        out.backward(torch.ones_like(out))
        optimizer.step()

    if begun:
        step()
    weights, rows = 64 * 64 * 4, 8 * 64 * 4
    # The gradient of the last step is gone by then; `out` and where backward begins are still there with the new one.
    assert _peak(step) == 2 * weights + rows + 2 * rows + weights


def test_threads_are_put_in_order_by_their_clock() -> None:
    class Event:
        def __init__(self, thread: int, at: float, size: int = 0, name: str = "") -> None:
            self.at, self.size, self._thread, self._name = at, size, thread, name

        def name(self) -> str:
            return self._name

        def kind(self) -> str:
            return "memory_alloc" if self.size else "push"

        def thread_id(self) -> int:
            return self._thread

        def cpu_elapsed_us(self, other: Event) -> float:
            return other.at - self.at

        def cuda_memory_usage(self) -> int:
            return self.size

        def cpu_memory_usage(self) -> int:
            return 0

    main = [Event(1, 0, 100), Event(1, 1, name="torchturbo: from here on"), Event(1, 2, 10), Event(1, 6, 5)]
    backward = [Event(2, 3, 20), Event(2, 4, -20), Event(2, 5, -10)]
    found = Allocations()
    found.read([main, backward])
    assert found.growth == {"cpu": 0, "cuda": 30}


def test_half_of_the_bytes_are_half_of_the_memory() -> None:
    def step() -> Any:
        return torch.empty(KIB, dtype=torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)

    found = benchmark(step, budget=0.05, autocast="bf16")
    assert [row.memory for row in found.rows] == [4 * KIB, *([4 * KIB] * (len(found.rows) - 2)), 2 * KIB]


def test_where_somebody_profiles_memory_is_not_measured_and_the_notes_say_so() -> None:
    with torch.autograd.profiler.profile(use_kineto=False):  # type: ignore[no-untyped-call, attr-defined]
        found = benchmark(lambda: torch.empty(4), "exact", budget=0.05)
    assert [row.memory for row in found.rows] == [None] * len(found.rows)
    assert any("memory was not measured: a profiler is running" in note for note in found.notes)
