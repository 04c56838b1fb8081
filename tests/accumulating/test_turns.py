"""Decorated training loops: one window goes on over all turns of a generator or a coroutine."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest
import torch
from torch import nn

from torchturbo import accelerate, turbo
from torchturbo.errors import AccumulationWarning


class Loop:
    """A loop whose gradients are all one."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.zeros(()))
        self.optimizer = torch.optim.SGD([self.weight], lr=1.0)

    def micro(self) -> None:
        self.optimizer.zero_grad()
        (self.weight * 1.0).backward()
        self.optimizer.step()

    @property
    def moved(self) -> float:
        return -self.weight.item()


@accelerate(autocast=None, accumulate=2)
def generator(loop: Loop, micro: int) -> Iterator[float]:
    for _ in range(micro):
        loop.micro()
        yield loop.moved


@accelerate(autocast=None, accumulate=2)
async def coroutine(loop: Loop, micro: int) -> list[float]:
    moved = []
    for _ in range(micro):
        loop.micro()
        await asyncio.sleep(0)
        moved.append(loop.moved)
    return moved


@accelerate(autocast=None, accumulate=2)
async def async_generator(loop: Loop, micro: int) -> AsyncIterator[float]:
    for _ in range(micro):
        loop.micro()
        yield loop.moved


def test_a_generator() -> None:
    loop = Loop()
    assert list(generator(loop, 5)) == [0, 1, 1, 2, 2]
    assert loop.moved == 2.5


def test_a_coroutine() -> None:
    loop = Loop()
    assert asyncio.run(coroutine(loop, 5)) == [0, 1, 1, 2, 2]
    assert loop.moved == 2.5


def test_an_async_generator() -> None:
    loop = Loop()

    async def run() -> list[float]:
        return [moved async for moved in async_generator(loop, 5)]

    assert asyncio.run(run()) == [0, 1, 1, 2, 2]
    assert loop.moved == 2.5


def test_between_turns_others_train_as_ever() -> None:
    loop, other = Loop(), Loop()
    for number, _ in enumerate(generator(loop, 4), 1):
        other.micro()
        assert other.moved == number
        with turbo("fast", autocast=None, accumulate=3):
            pass
    assert loop.moved == 2


def test_two_at_once_have_windows_of_their_own() -> None:
    loops = [Loop(), Loop()]
    for seen in zip(generator(loops[0], 5), generator(loops[1], 5), strict=True):
        assert seen[0] == seen[1]
    assert [loop.moved for loop in loops] == [2.5, 2.5]

    async def both() -> None:
        await asyncio.gather(*(coroutine(loop, 3) for loop in loops))

    asyncio.run(both())
    assert [loop.moved for loop in loops] == [4, 4]


@pytest.mark.parametrize("how", ["closed", "forgotten", "thrown"])
def test_one_that_is_closed_midway_takes_no_step(how: str) -> None:
    """As a block takes none that an exception leaves, GeneratorExit too; and certainly none in a garbage collection."""
    loop = Loop()
    running = generator(loop, 5)
    for _ in range(3):
        next(running)
    if how == "closed":
        running.close()  # type: ignore[attr-defined]
    elif how == "thrown":
        with pytest.raises(KeyError):
            running.throw(KeyError())  # type: ignore[attr-defined]
    del running
    gc.collect()
    assert loop.moved == 1


def test_an_async_one_that_is_closed_midway_takes_no_step() -> None:
    loop = Loop()

    async def run() -> None:
        running = async_generator(loop, 5)
        for _ in range(3):
            await anext(running)
        await running.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    assert loop.moved == 1


def test_a_function() -> None:
    @accelerate(autocast=None, accumulate=2)
    def train(loop: Loop, micro: int) -> None:
        for _ in range(micro):
            loop.micro()

    loop = Loop()
    for micro, expected in ((5, 2.5), (5, 5.0), (2, 6.0)):
        train(loop, micro)
        assert loop.moved == expected


def test_a_function_of_one_step_warns() -> None:
    @accelerate(autocast=None, accumulate=2)
    def step(loop: Loop) -> None:
        loop.micro()

    loop = Loop()
    with pytest.warns(AccumulationWarning, match="put it around the loop, not around one step"):
        step(loop)
    assert loop.moved == 0.5
