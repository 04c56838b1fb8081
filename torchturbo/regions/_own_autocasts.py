"""`torch.autocast` that the code in a region enters around its forward passes: then autocast is the code's.

A training loop of somebody else's (Lightning, Accelerate, a script) may enter autocast by itself, and compute its loss
and all else in float32 on purpose. Nobody has to be known by name for that: it shows at the first backward, in the
graph. Where every parameter that the loss depends on has been used under an autocast of the code's own, the region's is
switched off from then on. Where only some have been, theirs is an island in ours, which goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple

import torch

from torchturbo._dynamo import untraced
from torchturbo.regions._here import Here, set_after, thread
from torchturbo.regions._leaves import Graph

_C: Any = torch._C
_number_of_next_node: Callable[[], int] = _C._autograd._get_sequence_nr
_increment, _decrement = torch.autocast_increment_nesting, torch.autocast_decrement_nesting
_ACCUMULATE: Any = _C._functions.AccumulateGrad
_AT_MOST = 64
"""Autocasts that are remembered, where no backward ever comes."""
OURS = False
"""The verdict that the code's own autocast covers a part of the forward alone."""


class Span(NamedTuple):
    """An autocast of the code's own, from its beginning to its end.

    Attributes:
        first: the number of the first node of a graph that is made in it.
        end: the number of the first node that is made after it; None while it is open.
        where: the line that has entered it, as ``file:line``.
    """

    first: int
    end: int | None
    where: str


@untraced
def _enters() -> int:
    """`torch.autocast_increment_nesting`, which torch's autocast calls as it begins."""
    nesting = _increment()
    here = thread.here
    if here.devices and nesting == 1 and here.own is None and torch.is_grad_enabled() and not _in_backward():
        frame = sys._getframe(1)
        its = frame.f_locals.get("self")
        if isinstance(its, torch.autocast) and its._enabled and its.device in here.devices:
            del here.spans[: 1 - _AT_MOST]
            here.spans.append(Span(_number_of_next_node(), None, _line(frame)))
    return nesting


@untraced
def _leaves() -> int:
    """`torch.autocast_decrement_nesting`, which torch's autocast calls as it ends."""
    nesting = _decrement()
    spans = thread.here.spans
    if spans and nesting == 0 and spans[-1].end is None:
        spans[-1] = spans[-1]._replace(end=_number_of_next_node())
    return nesting


NAMES = ("autocast_increment_nesting", "autocast_decrement_nesting")
THEIRS: tuple[Callable[[], int], ...] = (_increment, _decrement)
STANDING_IN: tuple[Callable[[], int], ...] = (_enters, _leaves)
TORCH = vars(torch)


def _in_backward() -> bool:
    return bool(_C._current_graph_task_id() != -1)


_INSIDE = (os.path.dirname(torch.__file__) + os.sep, os.sep + "contextlib.py")


def _line(frame: FrameType) -> str:
    """The line that enters autocast, which is neither torch's nor Python's."""
    its: FrameType | None = frame
    while its is not None and (
        its.f_code.co_filename.startswith(_INSIDE[0]) or its.f_code.co_filename.endswith(_INSIDE[1])
    ):
        its = its.f_back
    its = its or frame
    return f"{its.f_code.co_filename}:{its.f_lineno}"


@untraced
def judge(here: Here, outputs: Iterable[Any]) -> None:
    """Finds whose autocast is, where the code has entered one since the backward before; and leaves it to the code.

    Args:
        here: the thread's region.
        outputs: what a backward begins with.
    """
    spans = tuple(here.spans)
    here.spans.clear()
    if here.own is not None or _in_backward():
        return
    if spans[-1].end is None:
        # It is around backward and steps too, out of which the region keeps it.
        here.own = OURS
        return
    every, under = set(), set()
    for node in Graph(outputs).nodes:
        leaves = [its.variable for its, _ in node.next_functions if its.__class__ is _ACCUMULATE]
        # A factor of the loss, as a temperature, is no part of the forward.
        used = [id(leaf) for leaf in leaves if leaf.numel() > 1]
        if used:
            every.update(used)
            number = node._sequence_nr()
            if any(span.first <= number < (span.end or 0) for span in spans):
                under.update(used)
    if not every:
        return
    if under != every:
        here.own = OURS
        return
    here.own = spans[0].where
    # A step whose closure this backward is in would switch it on again.
    here.changes += 1
    for device in here.devices:
        torch.set_autocast_enabled(device, False)
    set_after(here, False)
