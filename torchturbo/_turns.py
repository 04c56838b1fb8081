"""Code that runs in turns: a block in force while a generator's or coroutine's own code runs, and at no other time.

Between two turns the caller, or another task, runs; it must see its own state. So the block leaves at the end of every
turn and enters again at the beginning of the next, in whichever thread that is. What the code changed by then is its
own: a flag that it wrote, a block that it opened and has not yet left. These leave and come back with it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import wrapt

from torchturbo._active import Active, Site
from torchturbo._dynamo import untraced
from torchturbo._turbo import _LOCK, _STACK, _THREAD, _close_astray, _enter, _leave, turbo
from torchturbo.settings._base import Cell, Write, parts_of
from torchturbo.settings._edits import Raw, always


class Turns:
    """The block around every turn of one generator or coroutine.

    Args:
        owner: what to put in force.
        site: where the code is, for messages.
    """

    __slots__ = ("_changed", "_kept", "_owner", "_site")

    def __init__(self, owner: turbo, site: Site) -> None:
        self._owner = owner
        self._site = site
        # The block, and those that the code has opened and not left; each with what the code has changed in it, in any
        # turn, oldest first. Empty while a turn runs.
        self._kept: list[tuple[Active, dict[Cell, Raw]]] = []
        self._changed: dict[Active, dict[Cell, Raw]] = {}

    @untraced
    def begin(self) -> Active:
        """Enters, as the last turn left it."""
        if not self._kept:
            return _enter(self._owner, self._site)
        opened = _THREAD.open
        if opened.astray:
            _close_astray(opened)
        pushed: list[Active] = []
        with _LOCK:
            try:
                for active, changed in self._kept:
                    active._open = opened
                    active.writes = _over(active._program.needed(), changed)
                    _STACK.push(active, opened)  # type: ignore[arg-type]
                    pushed.append(active)
            except BaseException:
                for active in reversed(pushed):
                    _STACK.pop(active, opened)  # type: ignore[arg-type]
                raise
        self._changed, self._kept = dict(self._kept), []
        return pushed[0]

    @untraced
    def pause(self, active: Active) -> None:
        """Leaves at the end of a turn, to go on later."""
        opened = active._open
        with _LOCK:
            mine = opened[opened.index(active) :]
            self._kept = []
            failed: list[BaseException] = []
            for layer in reversed(mine):
                self._kept.insert(0, (layer, self._changed.get(layer, {}) | _changed(layer)))
                try:
                    _STACK.pop(layer, opened)  # type: ignore[arg-type]
                except BaseException as error:
                    failed.append(error)
                layer.held = []
        if failed:
            raise failed[0]


def _over(writes: tuple[Write, ...], changed: dict[Cell, Raw]) -> tuple[Write, ...]:
    if not changed:
        return writes
    return tuple((cell, always(changed[cell]) if cell in changed else edit) for cell, edit in parts_of(writes))


def _changed(layer: Active) -> dict[Cell, Raw]:
    """What stands in this thread's newest layer other than as it was put, and what was made for its entry."""
    stands = _STACK.standing(layer)
    return {
        cell: stands[cell] for cell, _, _, put in layer.parts() if stands[cell] != put or cell in layer._program.anew
    }


@untraced
def in_turns(given_later: list[Any], turns: Turns, *, ends: bool = True) -> Generator[Any, Any, Any]:
    """Runs a generator, a coroutine or a step of an async generator, with the block in force in its turns.

    Args:
        given_later: holds by the first turn what is run, which has ``send``, ``throw`` and ``close``.
        turns: the block.
        ends: whether the code has ended when that returns; an async generator has not.
    """
    code = given_later.pop()
    resume, given = code.send, None
    while True:
        active = turns.begin()
        try:
            value = resume(given)
        except StopIteration as stop:
            if ends:
                _leave(active, None)
            else:
                turns.pause(active)
            return stop.value
        except BaseException as error:
            # An async generator comes to its end by this one.
            _leave(active, None if not ends and isinstance(error, StopAsyncIteration) else error)
            raise
        turns.pause(active)
        given = None
        try:
            given = yield value
            resume = code.send
        except GeneratorExit:
            _close(code, turns)
            raise
        except BaseException as error:
            resume, given = code.throw, error


@untraced
def _close(code: Any, turns: Turns) -> None:
    active = turns.begin()
    try:
        code.close()
    except BaseException as error:
        _leave(active, error)
        raise
    _leave(active, None, ended=False)


Make = Callable[[], Any]
"""Makes what is to be run in turns. It is called once the one who runs it is there: Python's collector closes the older
of the two first, and what is half run has to be closed in a turn."""


def generator(make: Make, turns: Turns) -> Any:
    """A generator that does what the one that `make` makes does, in turns."""
    given: list[Any] = []
    running = in_turns(given, turns)
    given.append(make())
    return _named_after(given[0], running)


class _Coroutine(wrapt.ObjectProxy[Any]):
    """A coroutine that does what the one it stands for does, in turns; in all else it is that one."""

    def __init__(self, make: Make, turns: Turns) -> None:
        given: list[Any] = []
        running = in_turns(given, turns)
        given.append(make())
        super().__init__(given[0])
        self._self_turns = running

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def _self_code(self) -> Any:
        """What runs: the turns, between the coroutine's beginning and its end; else the coroutine itself."""
        return self._self_turns if self.__wrapped__.cr_suspended or self.__wrapped__.cr_running else self.__wrapped__

    def send(self, value: Any, /) -> Any:
        return (self.__wrapped__ if self.__wrapped__.cr_frame is None else self._self_turns).send(value)

    def throw(self, *error: Any) -> Any:
        return self._self_code().throw(*error)

    def close(self) -> None:
        self._self_code().close()

    def __await__(self) -> Generator[Any, Any, Any]:
        if self.__wrapped__.cr_frame is None:
            self.__wrapped__.send(None)  # says that it cannot be awaited again
        if self._self_code() is self._self_turns:
            raise RuntimeError("coroutine is being awaited already")
        return self._self_turns


def coroutine(make: Make, turns: Turns) -> Any:
    """A coroutine that does what the one that `make` makes does, in turns."""
    return _Coroutine(make, turns)


class _Step:
    """One step of an async generator, to be awaited."""

    __slots__ = ("_step", "_turns")

    def __init__(self, step: Any, turns: Turns) -> None:
        self._step = step
        self._turns = turns

    def __await__(self) -> Generator[Any, Any, Any]:
        return in_turns([self._step], self._turns, ends=False)


def async_generator(make: Make, turns: Turns) -> Any:
    """An async generator that does what the one that `make` makes does, in turns."""
    given: list[Any] = []
    running = _in_async_turns(given, turns)
    given.append(make())
    return _named_after(given[0], running)


@untraced
async def _in_async_turns(given_later: list[Any], turns: Turns) -> AsyncGenerator[Any, Any]:
    code = given_later.pop()
    # The event loop closes the generators that it knows of; it knows this one, which closes the other.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        step = code.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    while True:
        try:
            value = await _Step(step, turns)
        except StopAsyncIteration:
            return
        try:
            step = code.asend((yield value))
        except GeneratorExit:
            await _Step(code.aclose(), turns)
            raise
        except BaseException as error:
            step = code.athrow(error)


def _named_after(code: Any, made: Any) -> Any:
    made.__name__, made.__qualname__ = code.__name__, code.__qualname__
    return made
