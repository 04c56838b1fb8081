"""The line of user code that is running: torch's own warnings point into torch, or nowhere."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_INSIDE = ("torch", "torchturbo", "wrapt", "contextlib")


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def users_frame() -> FrameType:
    """The newest frame of this thread that is neither torch's nor ours; the newest of all where there is none."""
    newest = frame = sys._getframe(1)
    while _package(frame) in _INSIDE:
        if frame.f_back is None:
            return newest
        frame = frame.f_back
    return frame


def warn_at(frame: FrameType, text: str, category: type[Warning]) -> None:
    """Warns, at the line that a frame is at.

    Args:
        frame: of user code.
        text: what to say.
        category: of the warning.
    """
    name = str(frame.f_globals.get("__name__", "unknown"))
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, name, registry)


def in_backward(frame: FrameType) -> bool:
    """Whether what runs is a backward that a frame of user code has called.

    Args:
        frame: as `users_frame` says.
    """
    inner: FrameType | None = sys._getframe(1)
    while inner is not None and inner is not frame:
        if inner.f_code.co_name == "_engine_run_backward":
            return True
        inner = inner.f_back
    return False
