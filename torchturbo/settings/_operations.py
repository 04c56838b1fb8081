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

_SAYS = re.compile(
    r"(?P<operation>.+?)(?: does not have a deterministic implementation, but you set"
    r"| defaults to a non-deterministic algorithm)",
    re.DOTALL,
)
_OF_CUBLAS = re.compile(r"Deterministic behavior was enabled with either")


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
        said = _SAYS.match(text)
        if said is None and not _OF_CUBLAS.match(text):
            return False
        operation = said["operation"] if said else "matrix products by cuBLAS"
        if operation not in named.operations:
            _name(operation)
            named.operations.add(operation)
        return True

    def __reduce__(self) -> str:
        return "_HEARD"


_HEARD = _Heard()


def _name(operation: str) -> None:
    frame = users_frame()
    called = "called by the backward" if in_backward(frame) else "called"
    warn_at(
        frame,
        f"{operation} has no deterministic implementation here, so the next run may have other bits: {called} at "
        f"{frame.f_code.co_filename}:{frame.f_lineno}. Use another operation there, or deterministic=True, which "
        "raises an error at it",
        DeterminismWarning,
    )


_FILTER: Any = ("ignore", _HEARD, UserWarning, None, 0)


def _filter(*, on: bool) -> None:
    filters: Any = warnings.filters
    if on and _FILTER not in filters:
        filters.insert(0, _FILTER)
    elif not on and _FILTER in filters:
        filters.remove(_FILTER)
    # What modules have warned of already is forgotten, as with every change of filters: torch's would not be asked.
    changed: Any = vars(warnings)
    if "_filters_mutated" in changed:
        changed["_filters_mutated"]()
    else:  # Python 3.14
        with changed["_lock"]:
            changed["_filters_mutated_lock_held"]()


def _read() -> Named | None:
    return _now.named


def _write(raw: Named | None, over: Raw) -> None:
    was, _now.named = _now.named, raw
    if (was is None) != (raw is None):
        _filter(on=raw is not None)


NAMED = Cell("the operations named", "process", _read, _write)
