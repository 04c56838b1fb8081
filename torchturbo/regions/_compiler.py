"""Listening to torch's compiler while regions are open: what it gives up on, and how long it takes.

`torch._dynamo` says in its log alone that it gives up on some code, which runs eagerly from then on. While some thread
has a region open, such a line about a region's own module becomes a `CompileWarning` that names it, or under strict
the error itself. Compilations are counted and timed, and one that takes long says so while it does.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo.errors import CompileWarning
from torchturbo.regions._targets import AT_MOST, Record, Target, here
from torchturbo.settings._base import TORCH
from torchturbo.settings._edits import Raw

PATIENCE = 5.0
"""Seconds that a compilation may take before it says that it is under way."""
_LOG = logging.getLogger("torchturbo")

# ----------------------------------------------------------------------------------------------- what it gives up


def give_up(target: Target, error: BaseException) -> None:
    """Notes that a target, or a part of it, runs eagerly because compiling it raised `error`."""
    inner = getattr(error, "inner_exception", error)
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    _note(
        target,
        f"could not be compiled, and what could not runs eagerly: {type(inner).__name__}: {' '.join(lines[:2]):.300}",
    )


def _note(target: Target, what: str) -> None:
    target.record.reason = what
    if what not in target.told:
        target.told.add(what)
        here.untold.append(f"{target.record.name} {what}")


@untraced
def tell() -> None:
    """Gives the warnings that wait, at the line that called the module."""
    untold, here.untold = here.untold, []
    for text in untold:
        warnings.warn(text, CompileWarning, stacklevel=outside())


_warned: set[str] = set()


@untraced
def warn_once(text: str) -> None:
    """Gives a warning that is about everything, once in a process."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, CompileWarning, stacklevel=outside())


@untraced
def outside() -> int:
    """The level, for a warning of who asks, of the line that called the module or function."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("torchturbo.", "torch.nn.")):
        level, frame = level + 1, frame.f_back
    return level


class _Listener(logging.Filter):
    """Takes what Dynamo says of a region's module out of its log."""

    def filter(self, record: logging.LogRecord) -> bool:
        target, message, args = here.target, str(record.msg), record.args
        if target is None or record.levelno < logging.WARNING:
            return True
        if message.startswith("torch._dynamo hit config.") and isinstance(args, tuple) and len(args) > 3:
            reason = str(args[3]).strip().partition("\n")[0]
            part = "" if f"'{target.eager.__name__}'" in str(args[2]) else f", a part of it: {args[2]}"
            _note(
                target,
                f"has been compiled too many times ({args[0]}={args[1]}{part}), and from now on runs eagerly whenever "
                f"something differs again. The last time that was: {reason}",
            )
            return False
        error = record.exc_info[1] if record.exc_info else None
        if error is None or "WON'T CONVERT" not in message:
            return True
        if here.asked.strict:
            # Another thread's lenience, which torch below 2.12 shares, is not ours.
            raise error
        give_up(target, error)
        if f"WON'T CONVERT {target.eager.__name__} " in message:
            _ask_no_more(error)
        return False


def _ask_no_more(error: BaseException) -> None:
    """A backend that has refused the whole of a target is not asked for its parts (torch >= 2.11 lets us say so)."""
    from torch._dynamo.exc import BackendCompilerFailed

    if isinstance(error, BackendCompilerFailed) and hasattr(error, "frame_exec_strategy"):
        dynamo: Any = torch._C._dynamo.eval_frame
        skip = dynamo._FrameAction.SKIP
        error.frame_exec_strategy = dynamo._FrameExecStrategy(skip, skip)


# ---------------------------------------------------------------------------------------------- how long it takes


class _Running:
    """A compilation under way."""

    __slots__ = ("record", "since", "timer")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.timer = threading.Timer(PATIENCE, self.say)
        self.timer.daemon = True
        self.timer.start()
        self.since = time.perf_counter()

    def say(self) -> None:
        """Says that it takes long."""
        seconds = time.perf_counter() - self.since
        sys.stderr.write(
            f"torchturbo: compiling {self.record.name}, {seconds:.0f} s so far; the first calls are slow, "
            "later ones are not\n"
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Counts it."""
        self.timer.cancel()
        seconds = time.perf_counter() - self.since
        its = self.record
        its.count += 1
        its.seconds += seconds
        _LOG.info("compiled %s (%s) in %.2f s, its compilation number %d", its.name, its.how, seconds, its.count)


_under_way: _Running | None = None
_frames: dict[str, Record] = {}
"""Who each of Dynamo's frames is a part of: a backward pass can be compiled after the call that it belongs to."""


def _begins(args: Any) -> None:
    global _under_way
    frame = str(args.compile_id).partition("/")[0]
    target = here.target
    if target is not None:
        if len(_frames) >= AT_MOST:
            _frames.clear()
        _frames[frame] = target.record
    elif args.callback_trigger.name == "DYNAMO":
        _frames.pop(frame, None)
    record = _frames.get(frame)
    _under_way = None if record is None else _Running(record)


def _ends(args: Any) -> None:
    global _under_way
    running, _under_way = _under_way, None
    if running is not None:
        running.end()


# ----------------------------------------------------------------------------------------------- while it listens

_DYNAMO_LOG = logging.getLogger("torch._dynamo.convert_frame")
_listener = _Listener()


def listen() -> None:
    """Has Dynamo say when compilations begin and end. Imports it; anew after ``torch.compiler.reset()``."""
    from torch._dynamo.callback import callback_handler

    if _begins not in callback_handler.start_callbacks:
        callback_handler.register_start_callback(_begins)
        callback_handler.register_end_callback(_ends)


def opened() -> None:
    """The first region has been opened."""
    _DYNAMO_LOG.addFilter(_listener)


def closed() -> None:
    """The last region has been closed."""
    _DYNAMO_LOG.removeFilter(_listener)
    callback: Any = sys.modules.get("torch._dynamo.callback")
    if callback is not None:
        handler = callback.callback_handler
        for callbacks, ours in ((handler.start_callbacks, _begins), (handler.end_callbacks, _ends)):
            if ours in callbacks:
                callbacks.remove(ours)


# -------------------------------------------------------------------------------------------------------- lenience


class _Lenience:
    """Dynamo's own way to go on where something cannot be compiled: the frame that failed runs eagerly from its start.

    It is in force only while a region calls compiled code. Its configuration is the process's up to torch 2.11, so
    calls are counted; and a context's since.
    """

    __slots__ = ("_calls", "_found", "_lock")

    def __init__(self) -> None:
        self._calls = 0
        self._found: Raw = None
        self._lock = threading.Lock()

    def begin(self) -> Raw:
        """Puts it in force, and returns what `end` needs."""
        entry = _entry()
        if TORCH >= (2, 12):
            found = entry.user_override.get()
            entry.user_override.set(True)
            return found
        with self._lock:
            self._calls += 1
            if self._calls == 1:
                self._found, entry.user_override = entry.user_override, True
        return None

    def end(self, found: Raw) -> None:
        """Returns to what was before."""
        entry = _entry()
        if TORCH >= (2, 12):
            entry.user_override.set(found)
            return
        with self._lock:
            self._calls -= 1
            if not self._calls:
                entry.user_override = self._found


def _entry() -> Any:
    """The option ``suppress_errors``, beneath its getter, which does not tell "unset" from False."""
    config: Any = sys.modules["torch._dynamo.config"]
    return config._config["suppress_errors"]


lenience = _Lenience()
