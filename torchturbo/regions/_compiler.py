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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from torchturbo._dynamo import untraced
from torchturbo.errors import CompileWarning
from torchturbo.settings._base import TORCH, Raw

PATIENCE = 5.0
"""Seconds that a compilation may take before it says that it is under way."""
_AT_MOST = 256
"""Targets that are remembered; and their frames, for backward passes that are compiled later."""
_LOG = logging.getLogger("torchturbo")


class Asked(NamedTuple):
    """What a thread's region asks for.

    Attributes:
        options: a mode of torch.compile, or its keywords; None where nothing is to be compiled.
        strict: whether what cannot be compiled is an error.
    """

    options: Any
    strict: bool


OFF = Asked(None, False)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What has been compiled for one module or function.

    Attributes:
        name: the module's class, or the function.
        how: the mode, or the keywords, of torch.compile.
        count: compilations, failed ones too; several where a graph breaks or what is guarded on changes. Those of
            several threads at one time count as one.
        seconds: what they took together.
        reason: why some of it runs eagerly, as a sentence, or None.
    """

    name: str
    how: str
    count: int
    seconds: float
    reason: str | None


class Target:
    """A module or function that is run compiled.

    Attributes:
        name: the module's class, or the function.
        how: the mode, or the keywords, of torch.compile.
        eager: runs it as it is; ``eager(first, args, kwargs)``, as `compiled`.
        compiled: runs it compiled.
        whole: whether a break in the graph is an error (``fullgraph=True``).
        given_up: whether it runs as it is from now on.
        count: its compilations.
        seconds: what they took.
        reason: why some of it runs eagerly.
        told: what has been warned of.
    """

    __slots__ = ("compiled", "count", "eager", "given_up", "how", "name", "reason", "seconds", "told", "whole")

    def __init__(self, name: str, how: str, eager: Callable[..., Any], keywords: dict[str, Any]) -> None:
        self.name = name
        self.how = how
        self.eager = eager
        self.compiled: Callable[..., Any] = torch.compile(eager, **keywords)
        self.whole = bool(keywords.get("fullgraph"))
        self.given_up = False
        self.count = 0
        self.seconds = 0.0
        self.reason: str | None = None
        self.told: set[str] = set()


class Here(threading.local):
    """What a thread's region needs to know.

    Attributes:
        asked: what the region asks for.
        inside: whether an outermost module or function is running, within which nothing is compiled anew.
        target: the one that is running compiled.
        untold: warnings to be given once it has ended.
    """

    def __init__(self) -> None:
        self.asked = OFF
        self.inside = False
        self.target: Target | None = None
        self.untold: list[str] = []


here = Here()


def compilations() -> tuple[Compiled, ...]:
    """What regions have compiled in this process, oldest first; the last 256 modules and functions."""
    return tuple(Compiled(t.name, t.how, t.count, t.seconds, t.reason) for t in tuple(_TARGETS) if t.count)


_TARGETS: deque[Target] = deque(maxlen=_AT_MOST)


def remember(target: Target) -> None:
    """Has a target told by `compilations`, once it has been compiled."""
    _TARGETS.append(target)


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
    target.reason = what
    if what not in target.told:
        target.told.add(what)
        here.untold.append(f"{target.name} {what}")


@untraced
def tell() -> None:
    """Gives the warnings that wait, at the line that called the module."""
    untold, here.untold = here.untold, []
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("torchturbo.", "torch.nn.")):
        level, frame = level + 1, frame.f_back
    for text in untold:
        warnings.warn(text, CompileWarning, stacklevel=level)


class _Listener(logging.Filter):
    """Takes what Dynamo says of a region's module out of its log."""

    def filter(self, record: logging.LogRecord) -> bool:
        target, message, args = here.target, str(record.msg), record.args
        if target is None or record.levelno < logging.WARNING:
            return True
        if message.startswith("torch._dynamo hit config.") and isinstance(args, tuple) and len(args) > 3:
            reason = str(args[3]).strip().partition("\n")[0]
            _note(
                target,
                f"has been compiled too many times ({args[0]}={args[1]}), and from now on runs eagerly whenever "
                f"something differs again. The last time it was {args[2]}, because: {reason}",
            )
            return False
        error = record.exc_info[1] if record.exc_info else None
        if error is None or "WON'T CONVERT" not in message:
            return True
        if here.asked.strict:
            # Another thread's lenience, which torch below 2.12 shares, is not ours.
            raise error
        give_up(target, error)
        _ask_no_more(error, target)
        return False


def _ask_no_more(error: BaseException, target: Target) -> None:
    """A backend that has refused the whole of a target is not asked for its parts (torch >= 2.11 lets us say so)."""
    from torch._dynamo.exc import BackendCompilerFailed

    if isinstance(error, BackendCompilerFailed) and hasattr(error, "frame_exec_strategy") and target.count <= 1:
        dynamo: Any = torch._C._dynamo.eval_frame
        skip = dynamo._FrameAction.SKIP
        error.frame_exec_strategy = dynamo._FrameExecStrategy(skip, skip)


# ---------------------------------------------------------------------------------------------- how long it takes


class _Running:
    """A compilation under way."""

    __slots__ = ("since", "target", "timer")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.timer = threading.Timer(PATIENCE, self.say)
        self.timer.daemon = True
        self.timer.start()
        self.since = time.perf_counter()

    def say(self) -> None:
        """Says that it takes long."""
        seconds = time.perf_counter() - self.since
        sys.stderr.write(
            f"torchturbo: compiling {self.target.name}, {seconds:.0f} s so far; the first calls are slow, "
            "later ones are not\n"
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Counts it."""
        self.timer.cancel()
        seconds = time.perf_counter() - self.since
        self.target.count += 1
        self.target.seconds += seconds
        _LOG.info(
            "compiled %s (%s) in %.2f s, its compilation number %d",
            self.target.name,
            self.target.how,
            seconds,
            self.target.count,
        )


_under_way: _Running | None = None
_frames: dict[str, Target] = {}
"""Who each of Dynamo's frames is a part of: a backward pass can be compiled after the call that it belongs to."""


def _begins(args: Any) -> None:
    global _under_way
    frame = str(args.compile_id).partition("/")[0]
    target = here.target
    if target is not None:
        if len(_frames) >= _AT_MOST:
            _frames.clear()
        _frames[frame] = target
    elif args.callback_trigger.name == "DYNAMO":
        _frames.pop(frame, None)
    target = target or _frames.get(frame)
    _under_way = None if target is None else _Running(target)


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
