"""Operations that may give other bits next time: each named once, with the line of user code that called it.

torch warns at every call, and says where in torch it was, or the first line that Python knows of. So what torch says is
heard before anybody shows it. Python asks every warnings filter whether the text matches; one of ours stands first
there, matches what torch says of such operations, and says it once and with the line.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from torchturbo.errors import DeterminismWarning
from torchturbo.settings._base import Cell
from torchturbo.settings._callers import in_backward, users_frame, warn_at
from torchturbo.settings._edits import Raw

_SAYS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"(.+?) does not have a deterministic implementation, but you set", re.DOTALL),
        "has no deterministic implementation here",
        "Use another operation there, or deterministic=True, which raises an error at it",
    ),
    (
        re.compile(r"(.+? [Aa]ttention) defaults to a non-deterministic algorithm"),
        "goes back by an algorithm that is not deterministic",
        "deterministic=True has torch take another one",
    ),
    (
        re.compile(r"Deterministic behavior was enabled with either()"),  # up to torch 2.9
        "A matrix product by cuBLAS is not deterministic with the workspace that it has",
        "Set cublas_workspace=':4096:8' before the first use of the GPU",
    ),
)
"""How torch begins, with its word for the operation; what we say of it, and what to write instead."""


class Named:
    """The operations that one entry of a block has named.

    Attributes:
        operations: in torch's words.
    """

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: set[str] = set()


class _Now:
    named: Named | None = None


_now = _Now()


class _Heard:
    """Stands for the text of a warnings filter, and hears what every warning says."""

    __slots__ = ()

    def match(self, text: str, *_: object) -> bool:
        """Whether it was torch, about an operation that is not deterministic; then it has been said as we say it."""
        named = _now.named
        if named is None:
            return False
        for begins, what, instead in _SAYS:
            said = begins.match(text)
            if said is not None:
                if said[1] not in named.operations:
                    _name(said[1], what, instead)
                    named.operations.add(said[1])
                return True
        return False

    def __reduce__(self) -> str:
        return "_HEARD"


_HEARD = _Heard()


_lines: set[tuple[str, str, int]] = set()
"""Operations and lines that have been named: a block around each step says no more than one around all of them."""


def _name(operation: str, what: str, instead: str) -> None:
    frame = users_frame()
    line = operation, frame.f_code.co_filename, frame.f_lineno
    if line in _lines:
        return
    called = "called by the backward" if in_backward(frame) else "called"
    where = f"{called} at {frame.f_code.co_filename}:{frame.f_lineno}"
    warn_at(
        frame,
        f"{operation} {what}, so the next run may have other bits: {where}. {instead}".strip(),
        DeterminismWarning,
    )
    _lines.add(line)


_FILTER: Any = ("ignore", _HEARD, UserWarning, None, 0)


def _filter(*, on: bool) -> None:
    filters: Any = warnings.filters
    if on and _FILTER not in filters:
        filters.insert(0, _FILTER)
    elif not on and _FILTER in filters:
        filters.remove(_FILTER)
    # What modules have warned of already is forgotten, as with every change of filters: torch's would not be asked.
    changed = getattr(warnings, "_filters_mutated", None)
    if changed is not None:
        changed()
    else:
        with warnings.catch_warnings():
            pass  # which says that filters have changed, too


def _read() -> Named | None:
    return _now.named


def _write(raw: Named | None, over: Raw) -> None:
    was, _now.named = _now.named, raw
    if (was is None) != (raw is None):
        _filter(on=raw is not None)


NAMED = Cell("the operations named", "process", _read, _write)
