"""`assert_restores`: a block, or a function, after which torch's global state must be as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, TypeVar

from torchturbo.errors import LeakError, TargetError
from torchturbo.testing._thing import Change
from torchturbo.testing._watch import State, watch

F = TypeVar("F", bound=Callable[..., Any])


def described(changes: Iterable[Change]) -> str:
    """The changes, a line or two for each: what it is, both values, and what to write instead."""
    lines = []
    for change in changes:
        name = change.name if change.name == change.torch else f"{change.name} ({change.torch})"
        lines.append(f"  {name}: {change.was} before, {change.now} after")
        if change.advice:
            lines.append(f"      {change.advice}")
        if change.kept is not None:
            lines.append(f"      it could not be put back: {change.kept}")
    return "\n".join(lines)


def not_allowed(changes: Iterable[Change], allowed: Collection[str]) -> list[Change]:
    """The changes that are not allowed by any of their names."""
    return [change for change in changes if change.known_as.isdisjoint(allowed)]


class assert_restores(ContextDecorator):
    """Asserts that a block leaves torch's global state as it found it; or each call of a function that it decorates.

    What was left changed is put back, as far as torch has a way, whether it is allowed or not. One object can be
    entered again and again, and within itself. What belongs to a thread (autocast, grad mode) is looked at in the
    thread that enters.

        >>> import torch
        >>> from torchturbo.testing import assert_restores
        >>> with assert_restores():
        ...     torch.backends.cudnn.benchmark = True
        Traceback (most recent call last):
            ...
        torchturbo.errors.LeakError: this block left torch's global state changed:
          cudnn_benchmark (torch.backends.cudnn.benchmark): False before, True after
              ...
        >>> torch.backends.cudnn.benchmark
        False

    Args:
        *allow: names of what may be left changed, as the error names it: an option ("cudnn_benchmark"), torch's own
            words ("torch.backends.cudnn.benchmark"), an environment variable, or a kind ("environment").
        random: also assert that no random number was drawn: from torch's CPU generator, `random` and NumPy.

    Raises:
        OptionNameError: there is nothing of such a name.
        TargetError: it was put on a coroutine function or a generator function, whose call ends before its code runs.

    When the block ends:

    Raises:
        LeakError: something was left changed. If the block has raised, that stands, with the same text as a note.
    """

    def __init__(self, *allow: str, random: bool = False) -> None:
        self._allow = allow
        self._watch = watch(random=random)
        self._watch.check(allow)
        self._before: list[State] = []

    def __call__(self, func: F) -> F:
        """Decorates a function: each of its calls is such a block."""
        if inspect.iscoroutinefunction(func) or inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TargetError(
                f"assert_restores() cannot decorate {func.__qualname__}, whose call ends before its code runs: "
                "write `with assert_restores():` in it"
            )
        return super().__call__(func)

    def __enter__(self) -> None:
        """Looks at how everything is."""
        self._before.append(self._watch.look())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts back what was left changed, and says so."""
        changes = not_allowed(self._watch.put_back(self._before.pop()), self._allow)
        if not changes:
            return
        leak = LeakError(f"this block left torch's global state changed:\n{described(changes)}")
        if error is None:
            raise leak
        error.add_note(f"{leak}")
