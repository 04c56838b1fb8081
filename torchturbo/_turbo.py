"""`turbo`: a profile around a block of code, and everything back as it was afterwards."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from torchturbo import hardware
from torchturbo._active import Active, Open, Site
from torchturbo._dynamo import untraced
from torchturbo._plan import Plan, asked
from torchturbo._program import Left, Program, program_of
from torchturbo._sources import UNNAMED, sources
from torchturbo._stack import Layer, Stack
from torchturbo.errors import RestoreError, UnsupportedHere, WrongThreadError
from torchturbo.profiles import Profile, parsed
from torchturbo.regions._backward import scaler_in
from torchturbo.regions._loading import layers
from torchturbo.regions._scaler import Scaler
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Raw, always

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

_untraced = partial(untraced, and_below=True)

_STACK = Stack()
_LOCK = _STACK.lock
_push, _pop, _new = _STACK.push, _STACK.pop, object.__new__
_CONTEXTLIB = vars(contextlib)
_CAN_MOVE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""What can be begun in one thread and ended in another."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.open = Open()


_THREAD = _Thread()


class turbo:
    """A profile around a block of code; everything is back as it was afterwards, exactly.

    One object can be entered again and again, within itself, and in several threads at once. Settings of the process
    (precision, cuDNN, determinism ...) are seen by every thread while the block is open; autocast, grad mode and the
    number of threads by the thread that opened it.

    Args:
        profile: a built-in profile by name, or one that a file has made, or a `Profile`. Without it, the one that the
            file names, or "fast".
        strict: raise where this machine cannot do what was asked, instead of leaving it out.
        **options: values that beat the profile's, whatever the profile.

    Raises:
        ProfileNameError: there is no such profile.
        OptionNameError: there is no such option.
        OptionValueError: an option does not take its value.
        ConfigError: a pyproject.toml or torchturbo.toml here cannot be read.

    On entry, before anything has changed:

    Raises:
        UnsupportedHere: `strict`, and this machine cannot do something that was asked.

    >>> import torch
    >>> with turbo("debug", num_threads=1):
    ...     torch.is_anomaly_enabled(), torch.get_num_threads()
    (True, 1)
    >>> torch.is_anomaly_enabled()
    False
    """

    __slots__ = ("_overrides", "_owned", "_profile", "_program", "_strict")
    _left_to: Left = ()

    @_untraced
    def __init__(self, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]) -> None:
        self._profile = sources().named(profile)
        self._strict = strict
        self._overrides = tuple(parsed(options).items()) if options else ()
        self._program: Program | None = None
        self._owned: dict[Cell, object] = {}

    @_untraced
    def __enter__(self) -> Active:
        frame = caller = sys._getframe(1)
        if frame.f_globals is _CONTEXTLIB and frame.f_back is not None:
            caller = frame.f_back
        return _enter(self, (id(frame), caller.f_code, caller.f_lasti))

    def _prepared(self) -> Program:
        """The program on the current hardware.

        Raises:
            UnsupportedHere: `strict`, and this machine cannot do something that was asked.
        """
        program = program_of(self._profile, self._overrides, self._strict, self._left_to)
        if self._strict and program.plan.unsupported:
            raise _unsupported(program.plan)
        self._program = program = program.of(self._owned)
        return program

    @property
    def scaler(self) -> Scaler | None:
        """The gradient scaling of all its blocks, or None where it scales nothing."""
        return scaler_in((self._program or self._prepared()).writes)

    @property
    def compiles(self) -> bool:
        """Whether what is called in the block is asked to be compiled."""
        wanted = asked(self._profile, dict(self._overrides), sources()).get("compile")
        return wanted is not None and bool(wanted.value)

    @_untraced
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = _THREAD.open
        frame = sys._getframe(1)
        active = opened[-1] if opened and not opened.astray else None
        if active is None or active._owner is not self or active._site[0] != id(frame):
            active = self._sought(opened, frame)
        if active._open is not opened:
            _leave_elsewhere(active)
        _leave(active, error)

    def _sought(self, opened: Open, frame: FrameType) -> Active:
        """The block of this object to leave: the newest that `frame` opened, or the newest of all.

        Another thread's, if it is there alone or a generator opened it there, is closed as far as this thread can.
        """

        def its(active: Active) -> bool:
            # A frame that has ended can have left its identity to another one.
            return active._site[:2] == (id(frame), frame.f_code)

        mine = [active for active in opened if active._owner is self and active not in opened.astray]
        theirs = [active for active in in_force() if active._owner is self and active._open is not opened]
        moves = frame.f_code.co_flags & _CAN_MOVE
        surely = [*filter(its, theirs if moves else ()), *filter(its, mine)]
        if not mine and not theirs:
            raise RuntimeError(f"{self!r} was left without having been entered")
        return (surely or mine or theirs)[-1]

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            f"{self!r} goes around a block, `with {self!r}:`; around a function goes accelerate(profile=...)"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _made_again, (type(self), self._profile, self._strict, self._overrides)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._overrides)
        return f"turbo({self._profile.name!r}{', strict=True' if self._strict else ''}{options})"


@_untraced
def _enter(owner: turbo, site: Site) -> Active:
    """Opens a block."""
    program = owner._program
    if program is None or program.hardware is not hardware.known:
        program = owner._prepared()
    opened = _THREAD.open
    if opened.astray:
        _close_astray(opened)
    # Python takes long to call an `__init__`.
    active = _new(Active)
    active.held, active.writes = [], program.needed()
    active._owner, active._program, active._open, active._site = owner, program, opened, site
    try:
        _push(active, opened)  # type: ignore[arg-type]
        return active
    except BaseException:
        # An interrupt can come between the push and the return; whoever enters would not leave then.
        if active in opened:
            _pop(active, opened)  # type: ignore[arg-type]
        raise


@_untraced
def _leave(active: Active, error: BaseException | None, *, ended: bool = True) -> None:
    """Closes a block of this thread, whose body ended with `error` or with none; or was closed before its end."""
    opened = active._open
    if active._program.ends and error is None and ended:
        try:
            active.end()
        except BaseException as failed:
            _leave(active, failed)
            raise
    try:
        try:
            _pop(active, opened)  # type: ignore[arg-type]
        finally:
            if opened.astray:
                _close_astray(opened)
    except RestoreError as failed:
        if error is None:
            raise
        error.add_note(f"torchturbo: {failed}")


@_untraced
def _leave_failed(active: Active, error: BaseException) -> None:
    """Closes a block that failed, in its body or, by an interrupt, in leaving: then it may have been left already."""
    if active in active._open:
        _leave(active, error)


def _leave_elsewhere(active: Active) -> NoReturn:
    """Closes a block that another thread opened, as far as this thread can."""
    with _LOCK:
        _STACK.pop(active, active._open, ("process",))  # type: ignore[arg-type]
        active._open.astray.append(active)
    raise WrongThreadError(
        f"the block opened at {active.where} in thread {active.thread!r} was closed in thread "
        f"{threading.current_thread().name!r}. What the process shares is back as it was; autocast, grad mode and "
        f"the number of threads belong to {active.thread!r} and come back there when it next enters or leaves a "
        "block. Close a block in the thread that opened it"
    )


def _made_again(kind: type[turbo], profile: Profile, strict: bool, overrides: tuple[tuple[str, object], ...]) -> turbo:
    made = kind.__new__(kind)
    made._profile, made._strict, made._overrides, made._program, made._owned = profile, strict, overrides, None, {}
    return made


def _close_astray(opened: Open) -> None:
    """Puts this thread's own state back for blocks that other threads have closed."""
    with _LOCK:
        while opened.astray:
            _STACK.pop(opened.astray.pop(), opened, ("thread",))  # type: ignore[arg-type]


def _unsupported(plan: Plan) -> UnsupportedHere:
    lines = "".join(f"\n  {d.name}={d.asked!r} ({d.origin}): {d.refused}" for d in plan.unsupported)
    return UnsupportedHere(f"this machine cannot do all that was asked of it, and strict=True:{lines}")


@_untraced
def _within(writes: tuple[Write, ...], call: Callable[[], Any], *, stands: list[Write] | None = None) -> Any:
    """Calls something while a layer of its own holds these; what that holds in the end is added to `stands`."""
    layer = Layer(writes)
    own: list[Layer] = []
    _STACK.push(layer, own)
    try:
        result = call()
        if stands is not None:
            with _LOCK:
                stands.extend((cell, always(raw)) for cell, raw in _STACK.standing(layer).items())
        return result
    finally:
        _STACK.pop(layer, own)


@_untraced
def _going_on(writes: tuple[Write, ...], call: Callable[[], Any]) -> tuple[Any, tuple[Write, ...]]:
    stands: list[Write] = []
    result = _within(writes, call, stands=stands)
    return result, tuple(stands)


layers.within, layers.going_on = _within, _going_on


def standing(active: Active) -> dict[Cell, Raw]:
    """What stands in a block's cells now, with what the code in it has made of them.

    Raises:
        RuntimeError: the block is not open in this thread.
    """
    if active not in _THREAD.open:
        raise RuntimeError(f"{active!r} is not open in this thread: call this inside the block")
    with _LOCK:
        return _STACK.standing(active)


def in_force() -> tuple[Active, ...]:
    """The blocks open now, in every thread, oldest first."""
    with _LOCK:
        return tuple(layer for layer in _STACK.layers if isinstance(layer, Active))


if hasattr(os, "register_at_fork"):
    # A child forked while another thread holds the lock would wait for it for ever.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
