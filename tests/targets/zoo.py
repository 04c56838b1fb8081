"""One target of every kind that `accelerate` takes, under the decorator that `choice` names.

All of them do the same `work`: they say what they see, call themselves again inside blocks of other profiles, and
return or raise. The targets that run in turns are driven turn by turn, and between two turns nothing may be in force.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.targets import choice
from torchturbo import turbo

decorate = choice.decorate

INSIDE = (True, 1, False, True, True, "medium")
"""What `state` says under the profile of the table."""

PROCESS_WIDE = (0, 4, 5)
"""Where in a state the process's own values stand, which other threads may change."""


def state() -> tuple[Any, ...]:
    """What the code that runs now can see of what the table's profile sets."""
    return (
        torch.is_anomaly_enabled(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


PROBLEMS: list[str] = []
"""What was wrong while something ran."""


class AsAsked(Exception):
    """Raised by a target that was told to."""


@dataclass(frozen=True)
class Order:
    """What a target is to do: how often to call itself again, and whether to raise at the innermost."""

    depth: int = 0
    raises: bool = False
    alone: bool = True

    @property
    def inner(self) -> Order:
        return replace(self, depth=self.depth - 1)


def block(order: Order) -> AbstractContextManager[Any]:
    """A block of another profile, for what a target does inside."""
    if choice.plain:
        return nullcontext()
    return turbo(("debug", "inference", "exact")[order.depth % 3], num_threads=2)


def look(when: str, must_be: tuple[Any, ...] = INSIDE) -> None:
    """Called in a target: it must see the profile's values, and all of them."""
    if state() != must_be:
        PROBLEMS.append(f"{when}: {state()}, not {must_be}")


class CallersState:
    """What the caller of something that runs in turns sees must be the same after every turn."""

    def __init__(self, order: Order) -> None:
        self.alone = order.alone
        self.before = self.mine()

    def mine(self) -> tuple[Any, ...]:
        return tuple(value for at, value in enumerate(state()) if self.alone or at not in PROCESS_WIDE)

    def check(self) -> None:
        if self.mine() != self.before:
            PROBLEMS.append(f"between two turns: {self.mine()}, not {self.before}")


def work(order: Order, again: Callable[[Order], Any]) -> tuple[Any, ...]:
    """What every target does."""
    look("at first")
    result = None
    if order.depth:
        with block(order):
            result = again(order.inner)
        look("after a block")
    elif order.raises:
        raise AsAsked("as asked")
    return "worked", order.depth, result


def turns(order: Order, again: Callable[[Order], Generator[int, Any, Any]]) -> Generator[Any, Any, tuple[Any, ...]]:
    look("in the first turn")
    got = [(yield "first")]
    look("in the second turn")
    if order.depth:
        with block(order):
            now = state()
            got.append((yield "in a block"))
            look("in a block", now)
            got.append((yield from again(order.inner)))
            look("in a block", now)
        look("after a block")
    elif order.raises:
        raise AsAsked("as asked")
    got.append((yield "last"))
    look("in the last turn")
    return "worked", order.depth, got


@types.coroutine
def pause(value: Any) -> Generator[Any, Any, Any]:
    """Gives the turn away."""
    return (yield value)


async def tasks(order: Order, again: Callable[[Order], Coroutine[Any, Any, Any]]) -> tuple[Any, ...]:
    look("in the first turn")
    got = [await pause("first")]
    look("in the second turn")
    if order.depth:
        with block(order):
            now = state()
            got.append(await again(order.inner))
            look("in a block", now)
            got.append(await pause("in a block"))
            look("in a block", now)
        look("after a block")
    elif order.raises:
        raise AsAsked("as asked")
    return "worked", order.depth, got


async def async_turns(order: Order, again: Callable[[Order], AsyncGenerator[Any, Any]]) -> AsyncGenerator[Any, Any]:
    look("in the first turn")
    yield await pause("first")
    look("in the second turn")
    if order.depth:
        with block(order):
            now = state()
            async for value in again(order.inner):
                yield value
                look("in a block", now)
        look("after a block")
    elif order.raises:
        raise AsAsked("as asked")
    yield "last"
    look("in the last turn")


# --------------------------------------------------------------------------------------------- functions of all kinds


@decorate
def function(order: Order) -> Any:
    return work(order, function)


anonymous = decorate(lambda order: work(order, anonymous))
builtin = decorate(operator.call)


def by_builtin(order: Order) -> Any:
    return builtin(work, order, by_builtin)


torchs_own = decorate(torch.add)


class Spy:
    """What a torch function hands over to: it runs inside the call."""

    def __init__(self, order: Order) -> None:
        self.order = order

    @classmethod
    def __torch_function__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return work(args[0].order, lambda order: torchs_own(Spy(order), 1))


def named(tag: str, order: Order) -> Any:
    return work(order, partial)


partial = decorate(functools.partial(named, "tag"))


class CallableKind:
    def __call__(self, order: Order) -> Any:
        return work(order, callable_object)


callable_object = decorate(CallableKind())


@decorate
@functools.lru_cache
def cached(order: Order, fresh: object) -> Any:
    return work(order, lambda order: cached(order, object()))


# ---------------------------------------------------------------------------------------------------- in a class


class Holder:
    order = Order()

    def __init__(self, order: Order | None = None) -> None:
        if order is not None:
            self.order = order

    @decorate
    def method(self, order: Order) -> Any:
        return work(order, self.method)

    @classmethod
    @decorate
    def class_method(cls, order: Order) -> Any:
        return work(order, cls.class_method)

    @decorate
    @classmethod
    def class_method_below(cls, order: Order) -> Any:
        return work(order, cls.class_method_below)

    @staticmethod
    @decorate
    def static(order: Order) -> Any:
        return work(order, Holder.static)

    @decorate
    @staticmethod
    def static_below(order: Order) -> Any:
        return work(order, Holder.static_below)

    @property
    @decorate
    def getter(self) -> Any:
        return work(self.order, lambda order: type(self)(order).getter)

    @decorate
    @property
    def getter_below(self) -> Any:
        return work(self.order, lambda order: type(self)(order).getter_below)

    @decorate
    @functools.cached_property
    def kept(self) -> Any:
        return work(self.order, lambda order: type(self)(order).kept)

    def _partly(self, tag: str, order: Order) -> Any:
        return work(order, self.partly)

    partly = decorate(functools.partialmethod(_partly, "tag"))

    @decorate
    def generator(self, order: Order) -> Any:
        return (yield from turns(order, self.generator))

    @classmethod
    @decorate
    def class_generator(cls, order: Order) -> Any:
        return (yield from turns(order, cls.class_generator))

    @decorate
    @staticmethod
    def static_generator(order: Order) -> Any:
        return (yield from turns(order, Holder.static_generator))

    @decorate
    async def coroutine(self, order: Order) -> Any:
        return await tasks(order, self.coroutine)

    @decorate
    @classmethod
    async def class_coroutine(cls, order: Order) -> Any:
        return await tasks(order, cls.class_coroutine)

    @staticmethod
    @decorate
    async def static_coroutine(order: Order) -> Any:
        return await tasks(order, Holder.static_coroutine)

    @decorate
    async def async_generator(self, order: Order) -> AsyncGenerator[Any, Any]:
        async for value in async_turns(order, self.async_generator):
            yield value

    @classmethod
    @decorate
    async def class_async_generator(cls, order: Order) -> AsyncGenerator[Any, Any]:
        async for value in async_turns(order, cls.class_async_generator):
            yield value

    @decorate
    @staticmethod
    async def static_async_generator(order: Order) -> AsyncGenerator[Any, Any]:
        async for value in async_turns(order, Holder.static_async_generator):
            yield value


class Plain:
    def method(self, order: Order) -> Any:
        return work(order, bound)


bound = decorate(Plain().method)


# ------------------------------------------------------------------------------------------------------------ in turns


@decorate
def generator(order: Order) -> Any:
    return (yield from turns(order, generator))


@decorate
async def coroutine(order: Order) -> Any:
    return await tasks(order, coroutine)


@decorate
async def async_generator(order: Order) -> AsyncGenerator[Any, Any]:
    async for value in async_turns(order, async_generator):
        yield value


# ------------------------------------------------------------------------------------------------------------- modules


class Working(nn.Module):
    """A module that works when it is given an order, and computes when it is given a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, order: Order | Tensor) -> Any:
        if isinstance(order, Tensor):
            return nn.functional.linear(order, self.weight)
        return work(order, self)


@decorate
class Accelerated(Working):
    """Its own forward is inherited: the class is given one."""


@decorate
class Base(Working):
    def forward(self, order: Order | Tensor) -> Any:
        return super().forward(order)


class Derived(Base):
    def forward(self, order: Order | Tensor) -> Any:
        return super().forward(order)


# ----------------------------------------------------------------------------------------------------- how they are run


def call(thing: Any, order: Order) -> Any:
    return thing(order)


def drive(thing: Any, order: Order) -> Any:
    """Runs a generator, or a coroutine as an event loop does, sending it a number in every turn."""
    outside = CallersState(order)
    running, seen, given = thing(order), [], None
    while True:
        try:
            seen.append(running.send(given))
        except StopIteration as stop:
            return seen, stop.value
        finally:
            outside.check()
        given = len(seen)


def drive_async_generator(thing: Any, order: Order) -> Any:
    async def collect() -> list[Any]:
        outside = CallersState(order)
        seen = []
        try:
            async for value in thing(order):
                outside.check()
                seen.append(value)
        finally:
            outside.check()
        return seen

    return drive(lambda order: collect(), order)


@dataclass(frozen=True)
class Target:
    """A kind of target: the thing itself, which is called and pickled, and how it is called."""

    thing: Callable[[], Any]
    run: Callable[[Any, Order], Any] = call


def of_holder(name: str, run: Callable[[Any, Order], Any] = call) -> Target:
    return Target(lambda: getattr(Holder(), name), run)


def got(name: str) -> Target:
    """What a holder computes when it is asked for an attribute."""
    return Target(lambda: Holder(), lambda holder, order: getattr(type(holder)(order), name))


TARGETS: dict[str, Target] = {
    "function": Target(lambda: function),
    "lambda": Target(lambda: anonymous),
    "builtin": Target(lambda: builtin, lambda thing, order: thing(work, order, by_builtin)),
    "torch builtin": Target(lambda: torchs_own, lambda thing, order: thing(Spy(order), 1)),
    "partial": Target(lambda: partial),
    "callable object": Target(lambda: callable_object),
    "lru_cache": Target(lambda: cached, lambda thing, order: thing(order, object())),
    "method": of_holder("method"),
    "method of the class": Target(lambda: Holder.method, lambda thing, order: thing(Holder(), order)),
    "classmethod": of_holder("class_method"),
    "classmethod, accelerate above": of_holder("class_method_below"),
    "staticmethod": of_holder("static"),
    "staticmethod, accelerate above": of_holder("static_below"),
    "property": got("getter"),
    "property, accelerate above": got("getter_below"),
    "cached_property": got("kept"),
    "partialmethod": of_holder("partly"),
    "bound method": Target(lambda: bound),
    "generator function": Target(lambda: generator, drive),
    "generator method": of_holder("generator", drive),
    "generator classmethod": of_holder("class_generator", drive),
    "generator staticmethod": of_holder("static_generator", drive),
    "coroutine function": Target(lambda: coroutine, drive),
    "coroutine method": of_holder("coroutine", drive),
    "coroutine classmethod": of_holder("class_coroutine", drive),
    "coroutine staticmethod": of_holder("static_coroutine", drive),
    "async generator function": Target(lambda: async_generator, drive_async_generator),
    "async generator method": of_holder("async_generator", drive_async_generator),
    "async generator classmethod": of_holder("class_async_generator", drive_async_generator),
    "async generator staticmethod": of_holder("static_async_generator", drive_async_generator),
    "Module class": Target(Accelerated),
    "Module subclass": Target(Derived),
    "Module instance": Target(lambda: decorate(Working())),
}


def in_a_process(name: str, thing: Any, order: Order) -> tuple[Any, list[str]]:
    """What a target gives in the process that has unpickled it, and what was wrong there."""
    PROBLEMS.clear()
    return TARGETS[name].run(thing, order), list(PROBLEMS)
