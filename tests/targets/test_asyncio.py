"""Coroutines and async generators under asyncio: tasks see their own state, whatever ends them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import types
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch

from tests.targets.programs import PROFILE, sees
from torchturbo import accelerate, turbo

INSIDE = (True, 1, False, True, True)
OWN = (1, 2, 3)
"""Which of what `sees` says belongs to the thread: threads, grad mode, autocast."""


@pytest.fixture(autouse=True)
def _loop_is_loaded() -> None:
    asyncio.run(asyncio.sleep(0))


def run(main: Any) -> Any:
    """Runs the event loop; the caller's state is as before."""
    before = sees()
    found = asyncio.run(main)
    assert sees() == before
    return found


@accelerate(**PROFILE)
async def sleeping(turns: int = 3, log: list[Any] | None = None) -> str:
    """Sleeps a few times."""
    try:
        for _ in range(turns):
            assert sees() == INSIDE
            await asyncio.sleep(0)
        return "slept"
    finally:
        if log is not None:
            log.append(sees())


@accelerate(**PROFILE)
async def counting(stop: int = 3, log: list[Any] | None = None) -> AsyncIterator[int]:
    """Counts, and sleeps between the numbers."""
    try:
        for number in range(stop):
            await asyncio.sleep(0)
            assert sees() == INSIDE
            yield number
    finally:
        await asyncio.sleep(0)
        if log is not None:
            log.append(sees())


# -------------------------------------------------------------------------------------------------------- many tasks


def test_a_thousand_tasks_each_with_a_profile_of_its_own() -> None:
    profiles: list[dict[str, Any]] = [
        {"profile": "exact", "num_threads": threads, "grad": grad, "autocast": autocast}
        for threads in (1, 2, 3)
        for grad in (True, False)
        for autocast in ("bf16", None)
    ]
    chosen = random.Random(1)
    seen = [0]

    def task(options: dict[str, Any]) -> Any:
        must_be = (options["num_threads"], options["grad"], options["autocast"] is not None)

        @accelerate(**options)
        async def work(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
                assert tuple(sees()[at] for at in OWN) == must_be
                seen[0] += 1

        return work(chosen.randint(1, 4))

    async def nobodys(before: Any) -> None:
        for _ in range(5):
            assert sees() == before
            await asyncio.sleep(0)

    async def main() -> None:
        before = sees()
        tasks = [task(chosen.choice(profiles)) for _ in range(1000)]
        await asyncio.gather(*tasks, *(nobodys(before) for _ in range(20)))

    run(main())
    assert seen[0] > 1500


def test_awaited_in_each_other() -> None:
    @accelerate(profile="exact", num_threads=2)
    async def outer() -> list[Any]:
        with turbo("exact", autocast="bf16"):
            got: list[Any] = [await sleeping(), tuple(sees()[at] for at in OWN)]
            got.append([number async for number in counting()])
        return [*got, tuple(sees()[at] for at in OWN)]

    assert run(outer()) == ["slept", (2, True, True), [0, 1, 2], (2, True, False)]


# ---------------------------------------------------------------------------------------------------- what ends them


def test_cancelled_between_turns() -> None:
    log: list[Any] = []

    async def main() -> None:
        before = sees()
        task = asyncio.create_task(sleeping(1000, log))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert sees() == before

    run(main())
    assert log == [INSIDE]


def test_cancelled_before_its_first_turn_without_a_warning() -> None:
    async def main() -> None:
        task = asyncio.create_task(sleeping())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(main())
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_timeouts() -> None:
    @accelerate(**PROFILE)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert sees() == INSIDE
            raise

    async def main() -> None:
        before = sees()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await slow()
        assert await asyncio.wait_for(sleeping(), 60) == "slept"
        assert sees() == before

    run(main())


def test_a_group_in_which_one_fails() -> None:
    log: list[Any] = []

    @accelerate(**PROFILE)
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("from a task")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeping(1000, log))
            group.create_task(fails())

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert [str(error) for error in caught.value.exceptions] == ["from a task"]
    assert log == [INSIDE]


def test_a_coroutine_that_catches_its_cancellation() -> None:
    @accelerate(**PROFILE)
    async def stays() -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return sees()

    async def main() -> Any:
        task = asyncio.create_task(stays())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert run(main()) == INSIDE


# ------------------------------------------------------------------------------------------------- async generators


def test_left_by_a_break_and_closed() -> None:
    log: list[Any] = []

    async def main() -> None:
        before = sees()
        running = counting(log=log)
        async for number in running:
            assert sees() == before
            if number == 1:
                break
        assert log == []
        await running.aclose()
        assert log == [INSIDE]
        assert sees() == before
        with pytest.raises(StopAsyncIteration):
            await anext(running)

    run(main())


def test_thrown_into() -> None:
    @accelerate(**PROFILE)
    async def catches() -> AsyncIterator[Any]:
        while True:
            try:
                yield sees()
            except ValueError as error:
                await asyncio.sleep(0)
                yield error, sees()

    async def main() -> None:
        running = catches()
        assert await anext(running) == INSIDE
        error = ValueError("thrown")
        assert await running.athrow(error) == (error, INSIDE)
        assert await running.asend(None) == INSIDE
        with pytest.raises(KeyError):
            await running.athrow(KeyError("not caught"))
        with pytest.raises(StopAsyncIteration):
            await anext(running)

    run(main())


@pytest.mark.parametrize("how", ["collected", "left to the loop's end"])
def test_forgotten_ones_are_closed_by_the_loop(how: str) -> None:
    log: list[Any] = []
    kept: list[Any] = []

    async def main() -> None:
        before = sees()
        running = counting(log=log)
        await anext(running)
        if how == "collected":
            del running
            for _ in range(6):
                await asyncio.sleep(0)
            assert log == [INSIDE]
        else:
            kept.append(running)
        assert sees() == before

    run(main())
    assert log == [INSIDE]


def test_without_a_loop_a_forgotten_one_is_dropped_as_undecorated() -> None:
    from tests.targets.programs import astep

    @accelerate(**PROFILE)
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    before = sees()
    running = numbers()
    assert astep(running, "next", 0) == 1
    del running
    gc.collect()
    assert sees() == before


# --------------------------------------------------------------------------------------------------- what they are


def test_a_coroutine_is_one_and_says_how_far_it_is() -> None:
    made: Any = sleeping()
    assert inspect.iscoroutine(made)
    assert inspect.isawaitable(made)
    assert asyncio.iscoroutine(made)
    assert isinstance(made, types.CoroutineType)
    assert (made.__name__, made.__qualname__) == ("sleeping", "sleeping")
    assert inspect.getcoroutinestate(made) == inspect.CORO_CREATED
    made.send(None)
    assert inspect.getcoroutinestate(made) == inspect.CORO_SUSPENDED
    made.close()
    assert inspect.getcoroutinestate(made) == inspect.CORO_CLOSED
    assert asyncio.iscoroutinefunction(sleeping)


def test_an_async_generator_is_one() -> None:
    made: Any = counting()
    assert inspect.isasyncgen(made)
    assert (made.__name__, made.__qualname__) == ("counting", "counting")
    assert aiter(made) is made


@pytest.mark.parametrize("decorator", [lambda function: function, accelerate], ids=["plain", "accelerated"])
def test_awaited_twice(decorator: Callable[..., Any]) -> None:
    @decorator
    async def once() -> int:
        return 1

    async def main() -> None:
        made = once()
        assert await made == 1
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await made

    run(main())


@pytest.mark.parametrize("decorator", [lambda function: function, accelerate], ids=["plain", "accelerated"])
def test_awaited_by_two_at_once(decorator: Callable[..., Any]) -> None:
    @decorator
    async def slow() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def other(made: Any) -> Any:
        return await made

    async def main() -> Any:
        made = slow()
        return await asyncio.gather(other(made), other(made), return_exceptions=True)

    first, second = run(main())
    assert first == 1
    assert isinstance(second, RuntimeError)
    assert str(second) == "coroutine is being awaited already"


@pytest.mark.parametrize("decorator", [lambda function: function, accelerate], ids=["plain", "accelerated"])
def test_never_awaited_says_so_once(decorator: Callable[..., Any]) -> None:
    @decorator
    async def forgotten() -> None:
        pytest.fail("it ran")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made = forgotten()
        del made
        gc.collect()
    assert [str(warning.message).split("\n")[0] for warning in warned] == [
        f"coroutine '{forgotten.__qualname__}' was never awaited"
    ]


def test_a_task_can_be_had_of_it_and_knows_its_name() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(sleeping())
        assert "sleeping" in repr(task)
        assert await task == "slept"
        assert torch.is_grad_enabled()

    run(main())
