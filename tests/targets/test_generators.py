"""What a generator owes beyond its turns: other threads, the collector, `yield from`, what it is and what it says."""

from __future__ import annotations

import contextlib
import gc
import inspect
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch

from tests.fresh import Fresh
from tests.targets.programs import PROFILE, finish, sees, turn
from torchturbo import accelerate, turbo


def process() -> tuple[Any, ...]:
    """What the whole process sees."""
    return (
        torch.is_anomaly_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_float32_matmul_precision(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        sees(),
    )


def in_thread(function: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


@accelerate(profile="debug", grad=False, num_threads=1, matmul_precision="medium")
def counting(start: int = 0, *, stop: int = 5) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Counts, and says what it sees."""
    for number in range(start, stop):
        yield number, process()


def test_the_callers_state_is_its_own_between_turns() -> None:
    before = process()
    for number, inside in counting(stop=3):
        assert process() == before, number
        assert inside != before
        assert (inside[0], inside[3], inside[4]) == (True, "medium", True)
    assert process() == before


def test_the_caller_may_change_its_own_state_between_turns() -> None:
    running = counting()
    _, inside = next(running)
    with torch.no_grad(), turbo("exact", num_threads=2, anomaly=False):
        outside = process()
        assert next(running)[1] == inside
        assert process() == outside
    with torch.autocast("cpu", torch.bfloat16):
        assert next(running)[1][:5] == inside[:5]
        assert torch.is_autocast_enabled("cpu")
    running.close()


def test_a_block_held_open_over_turns_is_its_own() -> None:
    seen = []

    @accelerate(profile="exact", anomaly=True)
    def holds() -> Iterator[int]:
        with turbo("inference", num_threads=2):
            with torch.no_grad(), turbo("debug"):
                for number in range(4):
                    seen.append((torch.get_num_threads(), torch.is_grad_enabled(), process()[4]))
                    yield number
            seen.append((torch.get_num_threads(), torch.is_grad_enabled(), process()[4]))
            yield 4
        seen.append((torch.get_num_threads(), torch.is_grad_enabled(), process()[4]))

    before = process()
    threads = torch.get_num_threads()
    for _ in holds():
        assert process() == before
    assert process() == before
    assert seen == [(2, False, True)] * 4 + [(2, False, False), (threads, True, False)]


def test_two_interleaved_with_other_profiles() -> None:
    before = process()
    first, second = counting(), counting.__wrapped__()
    third = accelerate(counting.__wrapped__, profile="inference", autocast="bf16")()
    one, two, three = zip(*zip(first, second, third, strict=True), strict=True)
    assert len({repr(inside) for _, inside in one}) == 1
    assert [inside for _, inside in two] == [before] * 5
    assert len({repr(inside) for _, inside in three}) == 1
    assert one[0][1] != three[0][1] != before


def test_resumed_in_other_threads() -> None:
    before, running = process(), counting()
    _, inside = next(running)

    def resume() -> Any:
        own = process()
        return next(running)[1], process() == own

    for _ in range(2):
        assert in_thread(resume) == (inside, True)
        assert process() == before
    assert next(running)[1] == inside
    assert in_thread(lambda: running.close() or sees()[2]) is True
    assert process() == before


@pytest.mark.parametrize("where", ["here", "in another thread", "in a cycle"])
def test_dropped_half_run(where: str) -> None:
    ended = []

    @accelerate(**PROFILE)
    def half() -> Iterator[int]:
        try:
            with torch.enable_grad():
                yield 1
        finally:
            ended.append(sees())

    before = process()
    running: Any = half()
    next(running)
    if where == "in a cycle":
        holder: list[Any] = [running]
        holder.append(holder)
        del running, holder
        gc.collect()
    elif where == "here":
        del running
    else:
        box = [running]
        del running
        in_thread(box.clear)
    after = process()
    torch.set_grad_enabled(True)
    assert ended == [(True, 1, False, True, True)]
    assert after == before


HALF_RUN = {
    "a generator": """
@accelerate(**options)
def turns():
    yield 1
running = turns()
next(running)
""",
    "a block in a plain generator": """
def turns():
    with turbo(**options):
        yield 1
running = turns()
next(running)
""",
    "a coroutine": """
import types
@types.coroutine
def turn():
    yield 1
@accelerate(**options)
async def turns():
    await turn()
running = turns()
running.send(None)
""",
}


@pytest.mark.parametrize("code", HALF_RUN.values(), ids=HALF_RUN)
def test_one_that_is_half_run_when_python_ends(code: str, fresh_python: Fresh) -> None:
    code = f"""
from torchturbo import accelerate, turbo
options = dict(profile="exact", grad=False, anomaly=True, num_threads=1)
{code}"""
    done = fresh_python(code, seconds=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
def test_others_in_a_cycle_dropped_half_run(kind: str) -> None:
    ended = []

    @accelerate(**PROFILE)
    async def half(holder: list[Any]) -> None:
        try:
            with torch.enable_grad():
                await turn("waits")
        finally:
            ended.append(sees())

    @accelerate(**PROFILE)
    async def halves(holder: list[Any]) -> AsyncIterator[int]:
        try:
            with torch.enable_grad():
                yield 1
        finally:
            ended.append(sees())

    before = process()
    holder: list[Any] = []
    if kind == "coroutine":
        holder.append(half(holder))
        holder[0].send(None)
    else:
        holder.append(halves(holder))
        finish(anext(holder[0]))
    del holder
    gc.collect()
    after = process()
    torch.set_grad_enabled(True)
    assert ended == [(True, 1, False, True, True)]
    assert after == before


def test_accelerated_in_accelerated() -> None:
    seen = []

    @accelerate(profile="exact", num_threads=2)
    def outer() -> Any:
        seen.append(("outer", torch.get_num_threads(), torch.is_grad_enabled()))
        got = yield from inner()
        seen.append(("outer", torch.get_num_threads(), torch.is_grad_enabled()))
        return got

    @accelerate(profile="exact", grad=False)
    def inner() -> Any:
        got = []
        for number in range(3):
            try:
                got.append((yield number))
            except ValueError as error:
                got.append(error)
            seen.append(("inner", torch.get_num_threads(), torch.is_grad_enabled()))
        return got

    before, running = process(), outer()
    assert [next(running), running.send("a")] == [0, 1]
    error = ValueError("thrown")
    assert running.throw(error) == 2
    assert process() == before
    with pytest.raises(StopIteration) as ended:
        running.send("b")
    assert ended.value.value == ["a", error, "b"]
    assert seen == [("outer", 2, True), *[("inner", 2, False)] * 3, ("outer", 2, True)]


def test_contextlib_above_accelerate() -> None:
    @contextlib.contextmanager
    @accelerate(**PROFILE)
    def managed() -> Iterator[Any]:
        try:
            yield sees()
        except ValueError:
            assert not torch.is_grad_enabled()

    before = process()
    with managed() as inside:
        assert process() == before
        raise ValueError("swallowed by the generator, as undecorated")
    assert inside == (True, 1, False, True, True)
    assert process() == before

    @contextlib.asynccontextmanager
    @accelerate(**PROFILE)
    async def managed_too() -> AsyncIterator[Any]:
        yield sees()

    async def user() -> Any:
        async with managed_too() as inside:
            assert process() == before
            return inside

    assert finish(user()) == inside


# ------------------------------------------------------------------------------------------------------ what they are


def plain_generator(first: int, *, key: str = "") -> Iterator[int]:
    """Yields."""
    yield first


async def plain_coroutine(first: int, *, key: str = "") -> int:
    """Returns."""
    return first


async def plain_async_generator(first: int, *, key: str = "") -> AsyncIterator[int]:
    """Yields, in turns of its own."""
    yield first


PLAIN = [plain_generator, plain_coroutine, plain_async_generator]


@pytest.mark.parametrize("plain", PLAIN, ids=lambda plain: plain.__name__)
def test_the_function_is_what_it_was(plain: Callable[..., Any]) -> None:
    decorated = accelerate(plain)
    for same in (
        inspect.isfunction,
        inspect.isgeneratorfunction,
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isroutine,
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
        inspect.getfullargspec,
        lambda function: (function.__name__, function.__qualname__, function.__module__, function.__annotations__),
        lambda function: isinstance(function, types.FunctionType),
    ):
        assert same(decorated) == same(plain), same
    assert decorated.__wrapped__ is plain


@pytest.mark.parametrize("plain", PLAIN, ids=lambda plain: plain.__name__)
@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"other": 1})])
def test_wrong_arguments_raise_at_the_call(plain: Callable[..., Any], args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError) as undecorated:
        plain(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        accelerate(plain)(*args, **kwargs)
    assert str(caught.value) == str(undecorated.value)


def test_a_generator_is_one_and_says_how_far_it_is() -> None:
    running = counting()
    assert isinstance(running, types.GeneratorType)
    assert inspect.isgenerator(running)
    assert (running.__name__, running.__qualname__) == ("counting", "counting")
    assert iter(running) is running
    assert inspect.getgeneratorstate(running) == inspect.GEN_CREATED
    next(running)
    assert inspect.getgeneratorstate(running) == inspect.GEN_SUSPENDED
    running.close()
    assert inspect.getgeneratorstate(running) == inspect.GEN_CLOSED
    assert list(running) == []


def test_one_that_is_never_begun_runs_nothing() -> None:
    before = process()
    running = counting()
    running.close()
    running = counting()
    with pytest.raises(ValueError, match="before it began"):
        running.throw(ValueError("before it began"))
    del running
    assert process() == before


def test_one_that_calls_itself_while_it_runs_says_so_as_undecorated() -> None:
    def resumes(function: Callable[..., Any]) -> Any:
        box: list[Any] = []

        def body() -> Iterator[int]:
            next(box[0])
            yield 1

        box.append(function(body)())
        with pytest.raises(ValueError, match="generator already executing"):
            next(box[0])
        box.clear()

    before = process()
    resumes(lambda body: body)
    resumes(accelerate(**PROFILE))
    assert process() == before
