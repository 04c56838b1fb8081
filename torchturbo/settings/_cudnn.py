"""float32 convolutions and recurrent nets on cuDNN: the flag `torch.backends.cudnn.allow_tf32` and three cells.

A leaf that may be ``default`` is never written: its parent is, while ``cuda/matmul``, the parent's other child, is made
explicit (`torchturbo.settings._matmul.explicit_matmul`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from torchturbo.settings._base import Cell
from torchturbo.settings._cells import HAS_CELLS, HAS_DEFAULT, UNDECIDED, get, put, raw_all, raw_leaf
from torchturbo.settings._edits import Edit

_C: Any = torch._C


class Cudnn(NamedTuple):
    """Raw state of float32 convolutions and recurrent nets on cuDNN.

    Attributes:
        allow_tf32: the flag of `torch.backends.cudnn.allow_tf32`.
        all: cell cuda/all, the parent of the two others (and of cuda/matmul).
        conv: cell cuda/conv.
        rnn: cell cuda/rnn.
    """

    allow_tf32: bool
    all: str
    conv: str
    rnn: str


_MAY_BE_DEFAULT = frozenset(("default", UNDECIDED))
_LEAF_AT_START = UNDECIDED if HAS_DEFAULT else "tf32"
_AT_START = Cudnn(True, "none", _LEAF_AT_START, _LEAF_AT_START)


def _flag() -> bool | None:
    """The flag of `torch.backends.cudnn.allow_tf32`, or None where cells contradict it and torch raises.

    True only where both leaves read tf32.
    """
    try:
        flag: bool = _C._get_cudnn_allow_tf32()
        return flag
    except RuntimeError:
        return None


def _read_cudnn() -> Cudnn:
    flag = _flag()
    if not HAS_CELLS:
        leaf = "tf32" if flag else "ieee"
        return Cudnn(bool(flag), "none", leaf, leaf)
    if flag and get("cuda", "all") == "none":
        # A torch that nobody has touched is read without a write.
        return _AT_START
    conv, rnn, own = raw_leaf("cuda", "conv"), raw_leaf("cuda", "rnn"), raw_all("cuda")
    if flag is None:
        conv = _decided("conv") if conv == UNDECIDED else conv
        rnn = _decided("rnn") if rnn == UNDECIDED else rnn
        flag = _allow_tf32(conv, rnn)
    return Cudnn(flag, own, conv, rnn)


def _allow_tf32(conv: str, rnn: str) -> bool:
    """The flag of `torch.backends.cudnn.allow_tf32` where its getter raises, from the raw leaves."""
    conv_is, rnn_is = get("cuda", "conv") == "tf32", get("cuda", "rnn") == "tf32"
    if conv_is == rnn_is:
        return not conv_is
    if "default" in (conv, rnn):
        # Whoever writes the flag overwrites both leaves, so it is still what torch starts with.
        return True
    operation, raw = ("conv", conv) if conv_is else ("rnn", rnn)
    try:
        put("cuda", operation, "ieee")
        return bool(_C._get_cudnn_allow_tf32())
    except RuntimeError:
        return True
    finally:
        put("cuda", operation, raw)


def _as_left(over: Cudnn) -> bool:
    """Whether everything still reads as it was left, so that what is in force is known without probing."""
    if get("cuda", "all") != over.all:
        return False
    readings = []
    for operation, raw in (("conv", over.conv), ("rnn", over.rnn)):
        expected = {UNDECIDED: "tf32", "default": over.all}.get(raw, raw)
        if expected == "none" or get("cuda", operation) != expected:
            return False
        readings.append(expected == "tf32")
    return _flag() == (over.allow_tf32 if readings == [over.allow_tf32] * 2 else None)


def _write_cudnn(raw: Cudnn, over: Cudnn) -> None:
    if not HAS_CELLS:
        _C._set_cudnn_allow_tf32(raw.allow_tf32)
        return
    if raw is _AT_START and over is _AT_START and _flag() and get("cuda", "all") == "none":
        return
    if not _as_left(over):
        over = _read_cudnn()
    conv, rnn = over.conv, over.rnn
    if raw.allow_tf32 != over.allow_tf32:
        _C._set_cudnn_allow_tf32(raw.allow_tf32)
        conv = rnn = "tf32" if raw.allow_tf32 else "none"
    if raw.all != over.all:
        put("cuda", "all", raw.all)
    for operation, wanted, current in (("conv", raw.conv, conv), ("rnn", raw.rnn, rnn)):
        if wanted not in _MAY_BE_DEFAULT:
            if wanted != current:
                put("cuda", operation, wanted)
            continue
        reading = "tf32" if wanted == UNDECIDED else _by_default(raw.all)
        if get("cuda", operation) != reading:
            put("cuda", operation, reading)


def _by_default(own: str) -> str:
    """What a ``default`` leaf reads: all that can be put back once somebody has overwritten it."""
    inherited: str = own if own != "none" else get("generic", "all")
    return {"none": "tf32", "bf16": "none"}.get(inherited, inherited)


def _moved_cudnn(found: Cudnn, was: Cudnn, now: Cudnn) -> Cudnn:
    """As `moved`; but a leaf that was put as tf32 can have been found undecided, and the other way round."""

    def same(part: object, other: object) -> bool:
        return part == other or (UNDECIDED in (part, other) and {part, other} <= {UNDECIDED, "tf32", "default"})

    parts: Any = (n if same(part, w) else part for part, w, n in zip(found, was, now, strict=True))
    return Cudnn(*parts)


CUDNN = Cell("cuDNN float32 precision", "process", _read_cudnn, _write_cudnn, _moved_cudnn)


def _decided(operation: str) -> str:
    """``"default"``, or ``"tf32"`` for any explicit value: what an undecided leaf is, whatever is in force now."""
    own = raw_all("cuda")
    other = "tf32" if get("cuda", operation) == "ieee" else "ieee"
    try:
        put("cuda", "all", other)
        return "default" if get("cuda", operation) == other else "tf32"
    finally:
        put("cuda", "all", own)


def cudnn(precision: str) -> Edit:
    """The edit that makes convolutions and recurrent nets on cuDNN use `precision`."""

    def edit(beneath: Cudnn) -> Cudnn:
        if beneath is _AT_START and precision == "tf32":
            return beneath
        own, leaves = beneath.all, []
        for operation, leaf in (("conv", beneath.conv), ("rnn", beneath.rnn)):
            if leaf == UNDECIDED and precision == "tf32":
                leaves.append(leaf)
                continue
            if leaf == UNDECIDED:
                leaf = _decided(operation)
            if leaf == "default":
                own = precision
            leaves.append("default" if leaf == "default" else precision)
        if not _MAY_BE_DEFAULT.isdisjoint(leaves):
            # Writing the flag overwrites both leaves, so it stays as it is.
            return beneath._replace(all=own, conv=leaves[0], rnn=leaves[1])
        return Cudnn(precision == "tf32", own, *leaves)

    return edit


def shown_cudnn(raw: Cudnn) -> str:
    """``"tf32"``, ``"ieee"``, or both where convolutions and recurrent nets differ."""
    shown = []
    for leaf in (raw.conv, raw.rnn):
        if leaf == "default":
            leaf = _by_default(raw.all)
        elif leaf == "none":
            leaf = raw.all if raw.all != "none" or not HAS_CELLS else get("generic", "all")
        shown.append("tf32" if leaf in ("tf32", UNDECIDED) else "ieee")
    conv, rnn = shown
    return conv if conv == rnn else f"conv {conv}, rnn {rnn}"
