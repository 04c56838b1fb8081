"""Random programs that run in turns do what they do undecorated, and are under the profile in their own turns only.

The reference is the plain code in a world of its own, whose state a driver puts in force for each turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings

from tests.targets import programs
from tests.targets.programs import DRIVES, PROFILE, PROGRAMS, AsyncSteps, Log, Program, Steps, World
from torchturbo import accelerate

generator, coroutine, async_generator = (
    accelerate(**PROFILE)(plain) for plain in (programs.generator, programs.coroutine, programs.async_generator)
)

KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "generator": (generator, lambda *given: Steps(programs.generator(*given)), programs.step),
    "coroutine": (coroutine, lambda *given: Steps(programs.coroutine(*given)), programs.step),
    "async generator": (async_generator, lambda *given: AsyncSteps(programs.async_generator(*given)), programs.astep),
}


def played(function: Callable[..., Any], step: Callable[..., Any], program: Program, drives: list[str]) -> Log:
    log: Log = []
    programs.drive(function(program, log, function), drives, log, step)
    return log


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(program=PROGRAMS, drives=DRIVES)
@example(program=(("no_grad", (("yield",), ("yield",))), ("yield",)), drives=["next"] * 4)
@example(program=(("block", "debug", (("yield",), ("set", "threads", 2), ("yield",))), ("yield",)), drives=["next"] * 5)
@example(program=(("set", "grad", True), ("yield",), ("set", "anomaly", False), ("yield",)), drives=["next"] * 4)
@example(program=(("catch", (("inner", (("yield",), ("raise",))),)), ("yield",)), drives=["next", "next", "throw"])
@example(program=(("finally", (("yield",),)),), drives=["next", "close"])
@example(program=(("yield",),), drives=["close", "next"])
@example(program=(("yield",),), drives=["throw", "next"])
@example(program=(("yield",),), drives=["send"])
def test_random_programs(kind: str, program: Program, drives: list[str]) -> None:
    accelerated, reference, step = KINDS[kind]
    assert played(accelerated, step, program, drives) == played(reference, step, program, drives)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_can_tell(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, reference, step = KINDS[kind]
    program, drives = (("set", "grad", True), ("yield",), ("yield",)), ["next", "next", "next"]

    def forgets(self: World, action: Callable[..., Any], *given: Any) -> Any:
        callers = programs.sees()
        programs.put(programs.IN_FORCE)
        try:
            return action(*given)
        finally:
            programs.put(callers)

    right = played(reference, step, program, drives)
    monkeypatch.setattr(World, "turn", forgets)
    assert played(reference, step, program, drives) != right
