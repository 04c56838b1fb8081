"""Random programs for code that runs in turns, and random ways to drive it: accelerated against the same undecorated.

A program is a list of instructions that a generator, a coroutine or an async generator carries out. It says in a log
what it is sent, what is thrown into it, and what it sees; a driver says what came out, and what it sees itself.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

import torch
from hypothesis import strategies as st

from torchturbo import turbo

Log = list[Any]
Program = tuple[Any, ...]

PROFILE: dict[str, Any] = {
    "profile": "exact",
    "anomaly": True,
    "num_threads": 1,
    "grad": False,
    "autocast": "bf16",
    "mkldnn_deterministic": True,
}


def sees() -> tuple[Any, ...]:
    """What the profile sets, and what the programs change."""
    return (
        torch.is_anomaly_enabled(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch._C._get_mkldnn_deterministic(),
    )


def put(values: tuple[Any, ...]) -> None:
    """Puts in force what `sees` said."""
    for what, value in zip(("anomaly", "threads", "grad", "autocast", "mkldnn"), values, strict=True):
        _set(what, value)


IN_FORCE = (True, 1, False, True, True)
"""What `sees` says under the profile."""


class Thrown(Exception):
    """Thrown into a program, or raised by it."""


def _set(what: str, value: Any) -> None:
    {
        "anomaly": torch.set_anomaly_enabled,
        "grad": torch._C._set_grad_enabled,
        "threads": torch.set_num_threads,
        "mkldnn": torch._C._set_mkldnn_deterministic,
        "autocast": lambda on: torch.set_autocast_enabled("cpu", on),
    }[what](value)


SETS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(["anomaly", "grad", "mkldnn", "autocast"]), st.booleans()),
    st.tuples(st.just("set"), st.just("threads"), st.sampled_from([1, 2])),
)
SIMPLE = st.one_of(
    st.just(("yield",)),
    st.just(("yield",)),
    SETS,
    st.just(("raise",)),
    st.just(("return",)),
)


def _more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = st.lists(inner, max_size=4).map(tuple)
    return st.one_of(
        st.tuples(st.just("no_grad"), body),
        st.tuples(st.just("enable_grad"), body),
        st.tuples(st.just("block"), st.sampled_from(["debug", "inference", "low_memory"]), body),
        st.tuples(st.just("catch"), body),
        st.tuples(st.just("finally"), body),
        st.tuples(st.just("inner"), body),
    )


PROGRAMS = st.lists(st.recursive(SIMPLE, _more, max_leaves=8), min_size=1, max_size=5).map(tuple)
DRIVES = st.lists(st.sampled_from(["next", "next", "send", "throw", "close", "exit"]), max_size=8)


def around(instruction: Any) -> Any:
    """The block of an instruction that has one."""
    kind = instruction[0]
    if kind == "no_grad":
        return torch.no_grad()
    if kind == "enable_grad":
        return torch.enable_grad()
    if kind == "block":
        return turbo(instruction[1], num_threads=2)
    return contextlib.nullcontext()


def generator(program: Program, log: Log, inner: Callable[..., Any]) -> Generator[Any, Any, Any]:
    """Carries a program out, as a generator."""
    for instruction in program:
        kind, body = instruction[0], instruction[-1]
        if kind == "yield":
            log.append(("sees", sees()))
            try:
                log.append(("sent", (yield len(log))))
            except BaseException as error:
                log.append(("thrown", repr(error)))
                raise
            finally:
                log.append(("sees again", sees()))
        elif kind == "set":
            _set(*instruction[1:])
        elif kind == "raise":
            raise Thrown("raised")
        elif kind == "return":
            return len(log)
        elif kind == "catch":
            try:
                yield from generator(body, log, inner)
            except Thrown as error:
                log.append(("caught", repr(error), repr(error.__context__)))
        elif kind == "finally":
            try:
                yield from generator(body, log, inner)
            finally:
                log.append(("at last", sees()))
        elif kind == "inner":
            log.append(("inner gave", (yield from inner(body, log, inner))))
        else:
            with around(instruction):
                yield from generator(body, log, inner)
    return "end"


@types.coroutine
def turn(value: Any) -> Generator[Any, Any, Any]:
    return (yield value)


async def coroutine(program: Program, log: Log, inner: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """Carries a program out, as a coroutine."""
    for instruction in program:
        kind, body = instruction[0], instruction[-1]
        if kind == "yield":
            log.append(("sees", sees()))
            try:
                log.append(("sent", await turn(len(log))))
            except BaseException as error:
                log.append(("thrown", repr(error)))
                raise
            finally:
                log.append(("sees again", sees()))
        elif kind == "set":
            _set(*instruction[1:])
        elif kind == "raise":
            raise Thrown("raised")
        elif kind == "return":
            return len(log)
        elif kind == "catch":
            try:
                await coroutine(body, log, inner)
            except Thrown as error:
                log.append(("caught", repr(error), repr(error.__context__)))
        elif kind == "finally":
            try:
                await coroutine(body, log, inner)
            finally:
                log.append(("at last", sees()))
        elif kind == "inner":
            log.append(("inner gave", await inner(body, log, inner)))
        else:
            with around(instruction):
                await coroutine(body, log, inner)
    return "end"


async def async_generator(program: Program, log: Log, inner: Callable[..., Any]) -> AsyncGenerator[Any, Any]:
    """Carries a program out, as an async generator: it yields, and awaits before every yield."""
    for instruction in program:
        kind, body = instruction[0], instruction[-1]
        if kind == "yield":
            log.append(("sees", sees()))
            log.append(("woken with", await turn("waits")))
            try:
                log.append(("sent", (yield len(log))))
            except BaseException as error:
                log.append(("thrown", repr(error)))
                raise
            finally:
                log.append(("sees again", sees()))
        elif kind == "set":
            _set(*instruction[1:])
        elif kind == "raise":
            raise Thrown("raised")
        elif kind == "return":
            return
        elif kind == "catch":
            try:
                async with contextlib.aclosing(async_generator(body, log, inner)) as parts:
                    async for part in parts:
                        yield part
            except Thrown as error:
                log.append(("caught", repr(error), repr(error.__context__)))
        elif kind == "finally":
            try:
                async with contextlib.aclosing(async_generator(body, log, inner)) as parts:
                    async for part in parts:
                        yield part
            finally:
                log.append(("at last", sees()))
        elif kind == "inner":
            async with contextlib.aclosing(inner(body, log, inner)) as parts:
                async for part in parts:
                    yield part
        else:
            with around(instruction):
                async with contextlib.aclosing(async_generator(body, log, inner)) as parts:
                    async for part in parts:
                        yield part


class World:
    """The reference: plain code with a state of its own, put in force by the driver for each of its turns."""

    def __init__(self) -> None:
        self.own = IN_FORCE

    def turn(self, action: Callable[..., Any], *given: Any) -> Any:
        callers = sees()
        put(self.own)
        try:
            return action(*given)
        finally:
            self.own = sees()
            put(callers)


class Steps:
    """Plain code that is sent to, thrown into and closed in its world: a generator, a coroutine, a step of one."""

    def __init__(self, code: Any, world: World | None = None) -> None:
        self.code = code
        self.world = world or World()

    def send(self, value: Any) -> Any:
        return self.world.turn(self.code.send, value)

    def throw(self, *error: Any) -> Any:
        return self.world.turn(self.code.throw, error[-1] if len(error) == 1 else error[1] or error[0]())

    def close(self) -> None:
        self.world.turn(self.code.close)

    def __iter__(self) -> Steps:
        return self

    __await__ = __iter__

    def __next__(self) -> Any:
        return self.send(None)


class AsyncSteps:
    """The same of an async generator."""

    def __init__(self, code: Any) -> None:
        self.code = code
        self.world = World()

    def __aiter__(self) -> AsyncSteps:
        return self

    def __anext__(self) -> Steps:
        return self.asend(None)

    def asend(self, value: Any) -> Steps:
        return Steps(self.code.asend(value), self.world)

    def athrow(self, error: BaseException) -> Steps:
        return Steps(self.code.athrow(error), self.world)

    def aclose(self) -> Steps:
        return Steps(self.code.aclose(), self.world)


def outcome(action: Callable[[], Any]) -> tuple[Any, ...]:
    """What an action gives, or raises, in a form that compares."""
    try:
        return "gave", action()
    except BaseException as error:
        # An accelerated coroutine is run by a generator, and so Python calls it in some of its messages.
        return "raised", type(error), str(error).replace("coroutine", "generator"), repr(error.__cause__)


def drive(running: Any, drives: list[str], log: Log, step: Callable[..., Any]) -> None:
    """Drives a program, and closes it in the end; the caller's own state must be the same throughout."""
    before = sees()
    for number, kind in enumerate([*drives, "close"]):
        log.append((kind, outcome(lambda kind=kind, number=number: step(running, kind, number))))
        log.append(("the caller's is as before", sees() == before))


def step(running: Any, kind: str, number: int) -> Any:
    if kind == "next":
        return running.send(None)
    if kind == "send":
        return running.send(f"number {number}")
    if kind == "throw":
        return running.throw(Thrown(f"number {number}"))
    if kind == "exit":
        return running.throw(GeneratorExit())
    return running.close()


def astep(running: Any, kind: str, number: int) -> Any:
    """As `step` of an async generator: run to the end of the turn, through all its waits."""
    made = {
        "next": lambda: running.asend(None),
        "send": lambda: running.asend(f"number {number}"),
        "throw": lambda: running.athrow(Thrown(f"number {number}")),
        "exit": lambda: running.athrow(GeneratorExit()),
        "close": running.aclose,
    }[kind]()
    return finish(made)


def finish(awaited: Any) -> Any:
    """Awaits something by hand; in each of its waits the caller's state must be what it was."""
    before, steps = sees(), awaited.__await__()
    given = None
    while True:
        try:
            steps.send(given)
        except StopIteration as stop:
            return stop.value
        given = "woken"
        assert sees() == before, "in a wait"
