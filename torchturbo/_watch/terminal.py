"""A bar at the bottom of a terminal, above which everybody else goes on printing.

It is drawn on stderr. What is printed to a stream that is a terminal goes through `_Above` meanwhile, which takes the
bar away first; the bar comes back once the cursor is at the beginning of a line, so where another bar is at work, as
tqdm's, which ends in no new line, ours waits. A stdout that is no terminal is not touched.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDTH = 80
"""Columns of a terminal that does not say how many it has."""
_live: list[Bar] = []
"""The bar that is at work: a terminal has room for one."""


class _Above:
    """A stream that prints above the bar; in all else it is the stream.

    Args:
        stream: the stream.
        bar: the bar.
    """

    def __init__(self, stream: IO[str], bar: Bar) -> None:
        self._stream = stream
        self._bar = bar

    def write(self, text: str) -> int:
        """Writes above the bar."""
        return self._bar.above(self._stream, text)

    def writelines(self, lines: Any) -> None:
        """Writes above the bar."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Bar:
    """A bar on stderr, which is a terminal.

    Args:
        stream: stderr.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._lines = 0
        """How many lines of it are on the screen."""
        self._at_start = True
        """Whether the cursor is where a line begins."""
        self._ours: dict[str, tuple[Any, _Above]] = {}
        from rich.console import Console

        self._console = Console(file=stream, force_terminal=True, force_jupyter=False)

    def begin(self) -> None:
        """Has what others print come above it."""
        _live.append(self)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is self._stream or _is_terminal(stream):
                above = _Above(stream, self)
                self._ours[name] = stream, above
                setattr(sys, name, above)

    def end(self) -> None:
        """Leaves what it shows, and the streams as they were; one that somebody else has put there stays."""
        if self in _live:
            _live.remove(self)
        for name, (stream, above) in self._ours.items():
            if getattr(sys, name) is above:
                setattr(sys, name, stream)
        self._ours.clear()
        if os.getpid() == self._pid:
            with self._lock:
                self._lines = 0

    def draw(self, shown: RenderableType) -> None:
        """Shows something in its place, unless a line of somebody else's is unfinished or another bar is at work.

        Args:
            shown: what rich can lay out.
        """
        columns = _columns(self._stream)
        with self._lock:
            if os.getpid() != self._pid or not self._at_start or others_bars() is not None:
                return
            self._console.width = max(20, columns - 1)
            with self._console.capture() as captured:
                self._console.print(shown, soft_wrap=False)
            text = captured.get()
            lines = text.count("\n")
            # The cursor stays to be seen: a process that is killed could not bring it back.
            self._write(self._away() + text.encode(self._console.encoding, "replace").decode(self._console.encoding))
            self._lines = lines

    def above(self, stream: IO[str], text: str) -> int:
        """Writes to a stream above it.

        Args:
            stream: of the terminal.
            text: what to write.
        """
        if os.getpid() != self._pid:  # a fork has the lock as it was, and nothing of the bar
            return stream.write(text)
        with self._lock:
            if self._lines and text:
                self._write(self._away())
                self._lines = 0
            written = stream.write(text)
            if text:
                self._at_start = text.endswith("\n")
                if self._ours:
                    stream.flush()
            return written

    def _away(self) -> str:
        return f"\x1b[{self._lines}A\r\x1b[J" if self._lines else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _columns(stream: IO[str]) -> int:
    """How wide the terminal is that a stream goes to: stdout, which Python asks, may go elsewhere."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (AttributeError, OSError, ValueError):  # no file, or closed
        return _WIDTH


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none at all, or closed
        return False


def others_bars() -> Any:
    """Tqdm's class where it draws bars now, which two on one screen would overwrite each other's; or None."""
    tqdm: Any = sys.modules.get("tqdm.std")
    return tqdm.tqdm if tqdm is not None and len(tqdm.tqdm._instances) else None


def bar_here() -> bool:
    """Whether a bar can be drawn on stderr: a terminal that moves its cursor."""
    if _live or not _is_terminal(sys.stderr) or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    from rich.console import Console

    return not Console(stderr=True).legacy_windows
