"""Planted faults are found, named, and told what helps; what is clean is said to be identical."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reproducible import faults
from torchturbo import Reproduction, check_reproducible


def checked(function: Callable[..., Any] | str, **options: Any) -> Reproduction:
    return check_reproducible(function, price_seconds=0, **options)


def test_an_unseeded_augmentation_in_a_worker_is_found_where_it_comes_in() -> None:
    found = checked(faults.unseeded_worker())
    assert not found.identical
    assert found.difference is not None
    assert (found.difference.kind, found.difference.name, found.difference.call) == ("input", "model", 1)
    assert (found.difference.dtype, found.difference.shape) == ("float32", (2, 4))
    assert found.difference.largest is not None
    assert 0 < found.difference.largest < 1e-2
    assert "stood elsewhere" not in str(found.difference), "no stream that is known had moved differently"
    advice = " ".join(found.advice)
    assert "No setting that was tried makes it identical." in advice
    assert "default_rng() or random.Random() made without a seed (in a data loader's worker too)" in advice


def test_a_sum_in_an_order_of_chance_is_found_in_its_layer() -> None:
    _, step = faults.scattered()
    found = checked(step)
    assert found.difference is not None
    assert (found.difference.kind, found.difference.name) == ("output", "model.1.1")
    assert (found.difference.call, found.difference.step, found.difference.shape) == (1, 1, (33,))
    assert found.difference.largest is not None
    assert 0 < found.difference.largest < 1e-4
    assert str(found).startswith("Different: 2 runs in this process, from the same state, as it is.")
    assert "What goes in is the same and what comes out is not" in " ".join(found.advice)


@pytest.mark.parametrize(
    ("in_order", "helps"),
    [
        (torch.are_deterministic_algorithms_enabled, "deterministic=True"),
        (lambda: torch.get_num_threads() == 1, "num_threads=1"),
        (lambda: onednn_is_deterministic(), "profile='reproducible'"),
        (lambda: onednn_is_deterministic() and torch.get_num_threads() == 1, "profile='reproducible', num_threads=1"),
    ],
)
def test_the_smallest_setting_that_helps_is_named(in_order: Callable[[], bool], helps: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = checked(faults.scattered(in_order)[1])
    finally:
        torch.set_num_threads(threads)
    assert found.advice == (
        f"It is identical in 3 runs under {helps}; of what was tried, this is the smallest change.",
    )


def onednn_is_deterministic() -> bool:
    return bool(torch.backends.mkldnn.deterministic)


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    def refuses() -> bool:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("scatter_me does not have a deterministic implementation\nand more")
        return False

    found = checked(faults.scattered(refuses)[1])
    assert found.advice[-1] == (
        "Under deterministic=True it raised: scatter_me does not have a deterministic implementation"
    )


def test_an_iterator_that_moves_on_is_named() -> None:
    model = nn.Linear(2, 2)
    batches = (torch.ones(1, 2) * n for n in range(40))

    def step() -> Any:
        return model(next(batches))

    found = checked(step, advise=False)
    assert found.difference is not None
    assert (found.difference.kind, found.difference.largest) == ("input", 1.0)
    assert found.advice == (
        "batches (a generator) moves on with each run and cannot be put back; what 2 runs take has been taken: take "
        "the batch before and give it with args=(batch,), or make the iterator in the function.",
    )


def test_an_iterator_that_ends_says_so_in_what_it_raises() -> None:
    batches = (torch.ones(1) for _ in range(1))

    def step() -> Tensor:
        return next(batches)

    with pytest.raises(StopIteration) as ended:
        checked(step)
    assert "batches (a generator) moves on with each run" in ended.value.__notes__[0]
    assert ended.value.__notes__[1] == "torchturbo: raised in run 2; run 1 had come to its end"


def test_a_stream_that_had_moved_elsewhere_is_named() -> None:
    runs: list[int] = []
    keep = runs.append

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    model = Odd()
    counted = Counted()

    def step() -> Any:
        keep(1)
        if counted.again():
            torch.rand(1)
        return model(torch.rand(2))

    found = checked(step, advise=False)
    assert found.difference is not None
    assert found.difference.streams == ("torch's generator on the CPU",)
    assert str(found.difference).endswith("(by then torch's generator on the CPU stood elsewhere than in run 1)")


class Counted:
    """Counts where nobody looks."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def again(self) -> bool:
        """Whether it was called before."""
        self._count += 1
        return self._count > 1


def test_what_is_clean_is_identical() -> None:
    _, step = faults.scattered(lambda: True)
    found = checked(step, runs=3)
    assert found
    assert (found.difference, found.advice, found.runs, found.steps) == (None, (), 3, 3)
    assert found.modules == ("model", "model.0", "model.1", "model.1.0", "model.1.1")
    assert found.compared > 3 * (5 + 3 + 3)
    assert str(found).startswith("Identical to the bit: 3 runs in this process, from the same state, as it is.")
