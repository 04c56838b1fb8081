"""What has been found out, as frozen data that shows itself: as a dictionary, JSON, text, and a table in a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torchturbo.errors import near

if TYPE_CHECKING:
    from rich.console import RenderableType


class Told:
    """The forms that a frozen dataclass takes. What it looks like stands beside it, in a file ``text``."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """It as dictionaries and lists of strings, numbers, booleans and None; NaN and infinity are strings."""
        told: dict[str, Any] = plain(self)
        return told

    def to_json(self, indent: int | None = 2) -> str:
        """It as JSON.

        Args:
            indent: spaces for each level; None for all on one line.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_text(self, width: int = 100) -> str:
        """It as plain text.

        Args:
            width: columns that lines may take.
        """
        return text_of(self, width)

    def __str__(self) -> str:
        return self.to_text()

    def __rich__(self) -> RenderableType:
        from torchturbo._sheet import Sheet

        return Sheet(partial(self._beside("text").sheet, self))

    def _beside(self, file: str) -> Any:
        """A file beside the one in which its class is."""
        return import_module(f"{type(self).__module__.rpartition('.')[0]}.{file}")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def of_that_name(things: Iterable[N], name: str, what: str) -> N:
    """The one of some things that has a name.

    Args:
        things: some.
        name: of one of them.
        what: what they are, for the message.

    Raises:
        KeyError: there is none; the message names the near ones.
    """
    known = {thing.name: thing for thing in reversed(tuple(things))}
    if name not in known:
        raise KeyError(f"there is no {what} {name!r}: {near(name, known)}")
    return known[name]


def plain(value: Any) -> Any:
    """A value as dictionaries, lists, strings, numbers, booleans and None, which JSON has.

    Args:
        value: anything; what is none of these is told by `str`.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return str(value)  # and nothing more than that, of a subclass
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(its) for key, its in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(its) for its in value]
    return str(value)


def text_of(told: RenderableType, width: int) -> str:
    """What rich can lay out, as text without colours, in lines of at most `width` columns."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=width, color_system=None, force_jupyter=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(told)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def show(told: RenderableType) -> None:
    """Prints something to where Python prints now, in the width and the colours that are to be had there."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(told)
    text = captured.get()
    if not console.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())
    # A path or a name that this terminal cannot write must not raise in the middle of somebody's training.
    console.file.write(text.encode(console.encoding, "backslashreplace").decode(console.encoding))


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A block that says what is going on where a person looks on: in a terminal.

    Args:
        title: what is under way.
    """
    from torchturbo.hardware import place

    if not sys.stderr.isatty() or place().rank:
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")
