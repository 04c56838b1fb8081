"""How what was seen of a loop is told: a bar in a terminal, a line every so often, or JSON lines."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter as clock
from typing import IO, Any, Literal, get_args

from torchturbo._watch.cause import Judge
from torchturbo._watch.data import Seen
from torchturbo._watch.lines import Lines
from torchturbo._watch.terminal import Bar, bar_here, others_bars
from torchturbo._watch.text import line_of
from torchturbo.errors import OptionValueError
from torchturbo.hardware._ranks import place

Show = Literal["auto", "bar", "lines", "json"]


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a watch.

    Attributes:
        every: seconds between two looks at the machine.
        alert: utilisation below which there is an alert; None for no alerts.
        after: seconds that it has to stay below.
        show: how it is told; None for not at all.
        say_every: seconds between two lines, where lines are told.
        to: where lines and JSON go; None for stderr.
    """

    every: float = 1.0
    alert: float | None = 0.7
    after: float = 10.0
    show: Show | None = "auto"
    say_every: float = 30.0
    to: str | Path | IO[str] | None = None

    def __post_init__(self) -> None:
        for name, least in (("every", 0.01), ("after", 0.0), ("say_every", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
                raise OptionValueError(f"{name}={value!r}: expected seconds, at least {least:g}")
        share: Any = self.alert
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1):
            raise OptionValueError(f"alert={self.alert!r}: expected a share from 0 to 1, as 0.7, or None for no alerts")
        if self.show is not None and self.show not in get_args(Show):
            words = ", ".join(map(repr, get_args(Show)))
            raise OptionValueError(f"show={self.show!r}: expected one of {words}, or None for nothing")

    @property
    def looks(self) -> bool:
        """Whether there is anything to look for while a loop runs."""
        return self.alert is not None or self.tells is not None

    @property
    def tells(self) -> Show | None:
        """How it is told here: by the first process of those that a launcher has started, and by no other."""
        if self.show is None or (place().rank and not isinstance(self.to, str | Path)):
            return None
        if self.show != "auto":
            return self.show
        return "bar" if self.to is None and bar_here() else "lines"


class Voice:
    """Tells of one loop after another, as one epoch comes after another.

    Args:
        options: what is asked for.

    Attributes:
        judge: says when to alert; None for never.
        lines: where the thread was seen.
        recompiled: graphs that were compiled after the first step of all.
        begun: whether there was a first step.
        busy: how busy the machine was when it was last looked at, 0 to 1.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.judge = None if options.alert is None else Judge(options.alert, options.after)
        self.lines = Lines()
        self.recompiled = 0
        self.begun = False
        self.busy = 1.0
        self._tells: Show | None = None
        self._bar: Bar | None = None
        self._said: float | None = None
        self._since = 0.0
        self._drawn = False

    def begin(self) -> None:
        """A loop begins: in a terminal, what others print comes above the bar from now on."""
        self._tells = self.options.tells
        self._drawn = False
        if self._tells == "bar" and self._bar is None:
            self._bar = Bar(sys.stderr)
            self._bar.begin()
        if isinstance(self.options.to, str | Path) and self._tells is not None:
            open(self.options.to, "a").close()  # where that cannot be, whoever asks for it learns it now
        self._since = clock() if self._said is None else self._said

    def tell(self, seen: Seen) -> None:
        """Tells what was seen now.

        Args:
            seen: of the loop.
        """
        if self._bar is not None:
            self._drawn = True
            self._bar.draw(seen)
        elif self._tells == "json":
            self._write(seen.to_json(indent=None))
        elif self._tells == "lines":
            # The first loop is told of when it is over, however short it was, and others not so often.
            now = clock()
            if now - self._since >= self.options.say_every or (seen.over and self._said is None):
                self._said = self._since = now
                self._write(line_of(seen))

    def end(self, seen: Seen) -> None:
        """A loop is over: what it was in all is told, where there was time to look at it.

        Args:
            seen: what was seen of it.
        """
        bar, self._bar = self._bar, None
        if bar is not None:
            try:
                if self._drawn:
                    bar.draw(seen)
            finally:
                bar.end()
        elif self._tells is not None:
            self.tell(seen)

    def _write(self, line: str) -> None:
        """Writes a line; where nobody can read it any more, that is not the loop's fault."""
        try:
            self._put(line)
        except (OSError, ValueError):
            self._tells = None

    def _put(self, line: str) -> None:
        to = self.options.to
        if isinstance(to, str | Path):
            with open(to, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        stream: Any = sys.stderr if to is None else to
        if stream is None:
            return
        if to is None and (bars := others_bars()) is not None:
            bars.write(line, file=stream)
            return
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError:  # a name that the stream's encoding has no letters for
            stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
