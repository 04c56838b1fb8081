"""`seed=`: the numbers that are drawn in a block, and everybody else's."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.laws.look import differences, look
from tests.laws.streams import NOTHING, Drawn, draw, seed_by_hand
from torchturbo import accelerate, turbo
from torchturbo.errors import OptionValueError


@pytest.fixture(autouse=True)
def _streams_stay() -> Iterator[None]:
    before = look()
    yield
    assert differences(before, look()) == ""


def by_hand(seed: int, count: int) -> list[Drawn]:
    """What code draws that is seeded as people write it."""
    with turbo(NOTHING, seed=0):
        seed_by_hand(seed)
        return [draw() for _ in range(count)]


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_a_seed_gives_what_seeding_by_hand_gives(seed: int) -> None:
    with turbo("exact", seed=seed):
        assert [draw() for _ in range(3)] == by_hand(seed, 3)


@pytest.mark.parametrize("profile", ["fast", "max", "exact", "reproducible", "inference", "low_memory", "debug"])
def test_every_profile_takes_a_seed(profile: str) -> None:
    with turbo(profile, seed=1):
        assert torch.initial_seed() == 1


def test_without_a_seed_streams_are_left_alone() -> None:
    with turbo(NOTHING, seed=7):
        drawn = [draw()]
        with turbo("reproducible"):
            drawn.append(draw())
        drawn.append(draw())
    assert drawn == by_hand(7, 3)


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (-1, "expected at least 0 and less than 2**32"),
        (2**32, "expected at least 0 and less than 2**32"),
        (1.0, "expected an int"),
        ("7", "expected an int"),
        (True, "expected an int"),
        (None, "expected an int"),
    ],
)
def test_what_is_no_seed_is_refused(seed: Any, says: str) -> None:
    with pytest.raises(OptionValueError) as refused:
        turbo(NOTHING, seed=seed)
    assert f"seed={seed!r}: {says}" in str(refused.value)


def test_a_body_that_raises_leaves_no_trace() -> None:
    def body() -> None:
        seed_by_hand(5)
        draw()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), turbo(NOTHING, seed=1):
        body()


def test_the_outer_stream_goes_on_as_if_the_inner_had_not_run() -> None:
    with turbo(NOTHING, seed=1):
        drawn = [draw()]
        with turbo(NOTHING, seed=2):
            assert [draw()] == by_hand(2, 1)
        drawn.append(draw())
    assert drawn == by_hand(1, 2)


def test_a_function_starts_afresh_at_each_call_and_recursion_in_each_of_its_own() -> None:
    @accelerate(profile=NOTHING, seed=3)
    def step(depth: int) -> list[Drawn]:
        first = draw()
        inner = step(depth - 1) if depth else []
        return [*inner, first, draw()]

    two = by_hand(3, 2)
    assert step(0) == two
    assert step(0) == two
    assert step(2) == [*two, *two, *two]


def test_a_block_in_a_thread_that_is_left_beneath_another() -> None:
    opened, leave = threading.Event(), threading.Event()

    def other() -> None:
        with turbo(NOTHING, seed=1):
            draw()
            opened.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    opened.wait(10)
    with turbo(NOTHING, seed=2):
        drawn = [draw()]
        leave.set()
        thread.join()
        drawn.append(draw())
    assert drawn == by_hand(2, 2)


# ----------------------------------------------------------------------------------------------------------- in turns


@accelerate(profile=NOTHING, seed=4)
def drawing(count: int) -> Iterator[Drawn]:
    for _ in range(count):
        yield draw()


def test_a_generators_stream_goes_on_and_its_callers_too() -> None:
    with turbo(NOTHING, seed=9):
        drawn = [(one, draw()) for one in drawing(3)]
    assert [one for one, _ in drawn] == by_hand(4, 3)
    assert [other for _, other in drawn] == by_hand(9, 3)


def test_two_generators_of_one_function_have_a_stream_each() -> None:
    one, other = drawing(3), drawing(3)
    assert [(next(one), next(other)) for _ in range(3)] == [(drawn, drawn) for drawn in by_hand(4, 3)]
    one.close()
    other.close()


def test_a_generator_that_rests_beneath_another_threads_block_goes_on_where_it_was() -> None:
    opened, leave = threading.Event(), threading.Event()

    def other() -> None:
        with turbo(NOTHING, seed=1):
            opened.set()
            leave.wait(10)

    @accelerate(profile=NOTHING, seed=4)
    def generator() -> Iterator[Drawn]:
        drawn = draw()
        thread.start()
        opened.wait(10)
        yield drawn
        yield draw()

    thread = threading.Thread(target=other)
    running = generator()
    first = next(running)
    leave.set()
    thread.join()
    assert [first, next(running)] == by_hand(4, 2)
    running.close()


def test_tasks_have_a_stream_each() -> None:
    @accelerate(profile=NOTHING, seed=4)
    async def task() -> list[Drawn]:
        drawn = []
        for _ in range(3):
            drawn.append(draw())
            await asyncio.sleep(0)
        return drawn

    @accelerate(profile=NOTHING, seed=5)
    async def stream() -> AsyncIterator[Drawn]:
        for _ in range(3):
            yield draw()
            await asyncio.sleep(0)

    async def main() -> list[list[Drawn]]:
        async def streamed() -> list[Drawn]:
            return [drawn async for drawn in stream()]

        return await asyncio.gather(task(), streamed(), task())

    four = by_hand(4, 3)
    assert asyncio.run(main()) == [four, by_hand(5, 3), four]


# ----------------------------------------------------------------------------------------------------- Python and NumPy


def test_numpys_generators_come_of_the_seed_where_they_are_made_of_a_draw() -> None:
    def made() -> float:
        return float(np.random.default_rng(random.getrandbits(128)).random())

    with turbo(NOTHING, seed=1):
        first = made()
    with turbo(NOTHING, seed=1):
        assert made() == first
    with turbo(NOTHING, seed=2):
        assert made() != first


def test_a_generator_of_another_kind_in_numpy_is_put_back() -> None:
    found = np.random.get_bit_generator()
    other = np.random.PCG64(7)
    np.random.set_bit_generator(other)
    try:
        state = other.state
        with turbo(NOTHING, seed=42):
            assert [draw()] == by_hand(42, 1)
        assert np.random.get_bit_generator() is other
        assert other.state == state
        with turbo(NOTHING, seed=1):
            np.random.set_bit_generator(np.random.SFC64())
        assert np.random.get_bit_generator() is other
    finally:
        np.random.set_bit_generator(found)


def test_the_hash_seed_is_for_processes_that_are_started_in_the_block() -> None:
    before = os.environ.get("PYTHONHASHSEED")
    with turbo(NOTHING, seed=42) as active:
        assert os.environ["PYTHONHASHSEED"] == "42"
        note = active.report()["seed"].note
    assert os.environ.get("PYTHONHASHSEED") == before
    if sys.flags.hash_randomization:
        assert note is not None
        assert "start it with PYTHONHASHSEED=42" in note


FRESH = """
import sys
from torchturbo import Profile, turbo
import torch

assert "numpy.random" not in sys.modules
import random

nothing = Profile("nothing")
states = []
with turbo(nothing, seed=3):
    import numpy  # for the first time, as far as the code can see

    drawn = numpy.random.rand()
with turbo(nothing, seed=3) as active:
    assert numpy.random.rand() == drawn
numpy.random.seed(3)
assert numpy.random.rand() == drawn

# Modes of torch's take the operations of the code around, and none of ours.
from torch._subclasses.fake_tensor import FakeTensorMode

with FakeTensorMode(), turbo(nothing, seed=3):
    pass
with torch.device("meta"), turbo(nothing, seed=3):
    pass
state = torch.get_rng_state()
with turbo(nothing, seed=3):
    assert torch.initial_seed() == 3
assert torch.equal(torch.get_rng_state(), state)
"""


def test_numpy_may_be_first_imported_in_the_block_and_modes_do_not_matter() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_numpy_there_is_no_stream_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchturbo.regions import _streams

    monkeypatch.setitem(sys.modules, "numpy.random", None)
    assert not _streams._NumPy().found()
