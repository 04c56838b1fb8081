"""The window of a backward: what it is scaled by and averaged over, found by all that runs within it.

torch carries what is stashed with a thread to the threads that run parts of its backward: those of devices, and those
that it takes where backwards run within backwards too deeply.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._scaler import Scaler

_C: Any = torch._C
_KEY = "torchturbo.window"


class Window:
    """One backward that began in a region, with all that runs within it.

    Args:
        scaler: what scales it, or None.
        accumulating: what accumulates its gradients, or None.
        leaves: what it writes to.

    Attributes:
        scale: the factor.
        shared: whether it is one of several that are averaged over.
        taken: the leaves that are seen to, by identity.
        reached: the leaves that it has come to, where their gradients are accumulated.
        within: leaves that only backwards within it have come to, which stay scaled until it ends.
    """

    __slots__ = ("accumulating", "reached", "scale", "scaler", "shared", "taken", "within")

    def __init__(self, scaler: Scaler | None, accumulating: Accumulation | None, leaves: Iterable[Tensor] = ()) -> None:
        self.scaler = scaler
        self.accumulating = accumulating
        self.scale = 1.0 if scaler is None else scaler.begin(leaves)
        self.shared = accumulating is not None and accumulating.every > 1
        self.taken: set[int] = set()
        # A checkpoint goes on with the gradients of the leaves that it makes, and drops them: they must not stay here.
        self.reached: list[weakref.ref[Tensor]] = []
        self.within: list[weakref.ref[Tensor]] = []

    def begun(self, grads: Iterable[Tensor | None]) -> tuple[Tensor | None, ...]:
        """The gradients that a backward begins with, scaled and averaged."""
        grads = times(grads, self.scale) if self.scaler is not None else grads
        # Divided one after the other, as it is written by hand: half precision rounds, and overflows, alike.
        if self.accumulating is None or not self.shared:
            return tuple(grads)
        return tuple(g if g is None else self.accumulating.share_of(g) for g in grads)


open_windows: list[Window] = []
"""The windows of all threads."""
LEFT_ALONE = object()
"""Stands for the window of a backward that a region leaves as it is."""


@cache
def _stash_owns() -> bool:
    """Whether torch counts its reference to what it stashes; up to 2.11 it gives back one that it has not taken."""
    probe = object()
    before = sys.getrefcount(probe)
    _C._stash_obj_in_tls(_KEY, probe)
    owns = sys.getrefcount(probe) > before
    if not owns:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(probe))
    return owns


@untraced
def stash(window: object | None) -> None:
    """Has this thread, and those that run parts of its backward, be in a window, or in none."""
    if window is None and _remove is not None:
        _remove(_KEY)
        return
    if not _stash_owns():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(window))
    _C._stash_obj_in_tls(_KEY, window)


_remove: Callable[[str], None] | None = getattr(_C, "_remove_obj_from_tls", None)


@untraced
def running() -> object | None:
    """The window of the backward that this thread runs a part of; None outside of regions that scale."""
    return _C._get_obj_in_tls(_KEY) if _C._is_key_in_tls(_KEY) else None


@untraced
def current_window() -> Window | None:
    """The scaled backward that this thread runs a part of, or None."""
    found = running() if open_windows else None
    return found if isinstance(found, Window) else None


def times(grads: Iterable[Tensor | None], scale: float) -> tuple[Tensor | None, ...]:
    """Gradients that a backward begins with, scaled.

    Args:
        grads: the gradients.
        scale: what to multiply by.
    """
    return tuple(None if grad is None else grad * scale for grad in grads)
