"""Which lines of the user's code a thread spends its time in, seen by looking at its stack now and then."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import threading
from collections import Counter
from dataclasses import dataclass
from types import FrameType

from torchturbo._watch.timeline import Phase

_AT_MOST = 3
"""Lines that are named."""
_SOON = 1e-4
"""Seconds after which a thread is asked to let another one run, where Python's own are 5e-3."""
_LEAST = 0.1
"""The share of a phase below which a line is not worth a word."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
_PYTHON = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})

_USERS, _OTHERS, _NOBODYS = 2, 1, 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of code, and how much of the time it was there.

    Attributes:
        file: its file.
        line: its number.
        function: what it is in.
        text: what stands there; empty where nobody knows.
        share: of the time that is told of, 0 to 1.
    """

    file: str
    line: int
    function: str
    text: str
    share: float

    def __str__(self) -> str:
        text = f": {self.text}" if self.text else ""
        return f"{os.path.basename(self.file)}:{self.line} in {self.function} ({self.share:.0%}){text}"


def _kind(file: str) -> int:
    """Whose code a file is: the user's, that of a package which is installed, or Python's, torch's and ours."""
    if file.startswith(("<frozen", "<__array_function__")) or file.startswith(_PACKAGE):
        return _NOBODYS
    for folder in _INSTALLED:
        if file.startswith(folder):
            return _NOBODYS if file.startswith((f"{folder}torch{os.sep}", f"{folder}wrapt{os.sep}")) else _OTHERS
    return _NOBODYS if file.startswith(_PYTHON) else _USERS


class _Prompt:
    """Has Python's lock given away soon, while somebody needs that.

    A thread that wants to run waits until another one lets the lock go, which it does by itself in torch's operations
    and hardly anywhere else: so all that could be seen of it is operations. Asked for the lock sooner, it gives it away
    where it is.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._needed = 0
        self._before = self._mine = 0.0

    def begin(self) -> None:
        """Counts one who needs it."""
        with self._lock:
            self._needed += 1
            if self._needed == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, _SOON))
                self._mine = sys.getswitchinterval()

    def end(self) -> None:
        """Counts one who needs it no more; what somebody else has set meanwhile stays."""
        with self._lock:
            self._needed -= 1
            if self._needed == 0 and sys.getswitchinterval() == self._mine:
                sys.setswitchinterval(self._before)

    def forget(self) -> None:
        """Ends it in a forked child, in which nobody looks."""
        self._lock = threading.RLock()
        if self._needed:
            self._needed = 1
            self.end()


prompt = _Prompt()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=prompt.forget)


class Lines:
    """How often a thread was seen in which line, by what it was about."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[Phase, str, int, str]] = Counter()
        self._kinds: dict[str, int] = {}

    def look(self, ident: int, phase: Phase) -> None:
        """Notes where a thread is.

        Args:
            ident: of the thread.
            phase: what it is about.
        """
        frame = sys._current_frames().get(ident)
        if frame is not None:
            self.note(frame, phase)

    def note(self, frame: FrameType | None, phase: Phase) -> None:
        """Counts the deepest line of the user's code; of a package where there is none.

        Args:
            frame: the deepest one.
            phase: what its thread is about.
        """
        found: FrameType | None = None
        while frame is not None:
            file = frame.f_code.co_filename
            kind = self._kinds.get(file)
            if kind is None:
                kind = self._kinds[file] = _kind(file)
            if kind == _USERS:
                found = frame
                break
            if kind == _OTHERS and found is None:
                found = frame
            frame = frame.f_back
        if found is not None:
            code = found.f_code
            self._seen[phase, code.co_filename, found.f_lineno or code.co_firstlineno, code.co_qualname] += 1

    def most(self, *phases: Phase) -> tuple[Line, ...]:
        """The lines that it was seen in most.

        Args:
            phases: while it was about one of these.
        """
        seen: Counter[tuple[str, int, str]] = Counter()
        for (phase, *place), times in list(self._seen.items()):
            if phase in phases:
                seen[tuple(place)] += times  # type: ignore[index]
        whole = seen.total()
        return tuple(
            Line(file, line, function, linecache.getline(file, line).strip(), times / whole)
            for (file, line, function), times in seen.most_common(_AT_MOST)
            if times / whole >= _LEAST
        )
