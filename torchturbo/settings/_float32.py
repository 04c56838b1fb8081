"""The exact state behind torch's float32 precision, which torch's own getters do not tell.

torch >= 2.9 keeps nine cells (generic/all; all, matmul, conv, rnn of cuda and of mkldnn), each ``none`` (follow the
parent) or explicit, beside two older values: the word of `torch.set_float32_matmul_precision` and the flag
`torch.backends.cudnn.allow_tf32`. Getters of cells answer with the *resolved* value, getters of the older values
raise when cells contradict them, and setters of the older values overwrite two cells each. From torch 2.13 the cells
cuda/conv and cuda/rnn start as ``default`` (tf32 unless a parent says otherwise), which nobody can write again once
it has been overwritten.

So each cell is read raw, by letting its parents change for a moment where (and only where) the reading is ambiguous;
a torch whose precision nobody has touched is read without any write. A leaf that may be ``default`` is never written:
its parent is, while ``cuda/matmul``, the parent's other child, is made explicit.

Three `Cell`s follow, none of which writes what another one reads: MATMUL, CUDNN and MKLDNN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from torchturbo.settings._base import TORCH, Cell, Edit, Raw, always

_C: Any = torch._C
_get: Any = getattr(_C, "_get_fp32_precision_getter", None)
_set: Any = getattr(_C, "_set_fp32_precision_setter", None)
HAS_CELLS = _get is not None
"""torch >= 2.9. Before, the two older values are all there is."""
HAS_DEFAULT = TORCH >= (2, 13)
"""The cells cuda/conv and cuda/rnn can be ``default``."""

UNDECIDED = "tf32 or default"
"""A leaf that reads tf32 with no parent in force: explicit or ``default``, which only a write would tell."""


def _all(backend: str) -> str:
    """The raw value of a backend's own cell, which its operations inherit."""
    value: str = _get(backend, "all")
    generic: str = _get("generic", "all")
    if value == "none" or value != generic:
        return value
    other = "tf32" if generic == "ieee" else "ieee"
    _set("generic", "all", other)
    try:
        return "none" if _get(backend, "all") == other else value
    finally:
        _set("generic", "all", generic)


def _leaf(backend: str, operation: str) -> str:
    """The raw value of one operation's cell."""
    value: str = _get(backend, operation)
    may_be_default = HAS_DEFAULT and backend == "cuda" and operation != "matmul"
    generic: str = _get("generic", "all")
    parent: str = _get(backend, "all")
    if parent == "none" and generic == "none":
        return UNDECIDED if may_be_default and value == "tf32" else value
    if value != parent:
        return value
    own = _all(backend)
    other = "tf32" if value == "ieee" else "ieee"
    try:
        _set(backend, "all", other)
        if _get(backend, operation) != other:
            return value
        if not may_be_default:
            return "none"
        _set("generic", "all", "none")
        _set(backend, "all", "none")
        return "default" if _get(backend, operation) == "tf32" else "none"
    finally:
        _set("generic", "all", generic)
        _set(backend, "all", own)


# ---------------------------------------------------------------------------------------------------------- matmul


class Matmul(NamedTuple):
    """Raw state of float32 matrix products.

    Attributes:
        legacy: the word of `torch.set_float32_matmul_precision`.
        cuda: cell cuda/matmul.
        mkldnn: cell mkldnn/matmul.
        means: what cuda/matmul resolves to, its own value or its parent's; read only.
    """

    legacy: str
    cuda: str
    mkldnn: str
    means: str


_WRITTEN_BY_LEGACY = {"highest": ("ieee", "ieee"), "high": ("tf32", "tf32"), "medium": ("tf32", "bf16")}


def _legacy(cuda: str, mkldnn: str) -> str:
    """The word of `torch.set_float32_matmul_precision` where its getter raises, from the resolved cells."""
    try:
        _C._get_cublas_allow_tf32()
        agrees = True
    except RuntimeError:
        agrees = False
    if (cuda == "tf32") != agrees:
        return "highest"
    if mkldnn == "bf16":
        return "high"
    if mkldnn == "tf32":
        return "medium"
    # Only a cell cuda/matmul that no older word stands for (bfx9, torch 2.15) still makes the getter raise.
    raw = _leaf("cuda", "matmul")
    _set("cuda", "matmul", "ieee")
    try:
        word: str = _C._get_float32_matmul_precision()
        return word
    finally:
        _set("cuda", "matmul", raw)


_AT_REST = {word: Matmul(word, "none", "none", "none") for word in _WRITTEN_BY_LEGACY}
"""Where no cell says anything; all there is before torch 2.9."""


def _read_matmul() -> Matmul:
    try:
        legacy = _C._get_float32_matmul_precision()
    except RuntimeError:
        legacy = None
    if not HAS_CELLS:
        return _AT_REST[legacy]
    cuda, mkldnn = _get("cuda", "matmul"), _get("mkldnn", "matmul")
    if cuda == "none" and mkldnn == "none" and legacy is not None:
        return _AT_REST[legacy]
    if legacy is None:
        legacy = _legacy(cuda, mkldnn)
    means = cuda
    if cuda != "none":
        cuda = _leaf("cuda", "matmul")
    if mkldnn != "none":
        mkldnn = _leaf("mkldnn", "matmul")
    return Matmul(legacy, cuda, mkldnn, means)


def _write_matmul(raw: Matmul, over: Raw) -> None:
    if raw is over:
        _undo_compiling(raw)
        return
    # Written whole: compiling a function in between can have changed any part, whatever was left in force.
    _C._set_float32_matmul_precision(raw.legacy)
    if not HAS_CELLS:
        return
    cuda, mkldnn = _WRITTEN_BY_LEGACY[raw.legacy]
    if raw.cuda != cuda:
        _set("cuda", "matmul", raw.cuda)
    if raw.mkldnn != mkldnn:
        _set("mkldnn", "matmul", raw.mkldnn)


def _undo_compiling(raw: Matmul) -> None:
    """Takes back what a compilation has written since `raw` was read, and nothing that somebody else has."""
    if not HAS_CELLS:
        if raw.legacy == "medium" and _C._get_float32_matmul_precision() == "high":
            _C._set_float32_matmul_precision("medium")
    elif raw.cuda == "none" != raw.means == _get("cuda", "matmul") and _leaf("cuda", "matmul") == raw.means:
        _set("cuda", "matmul", "none")


def compiling_changes_matmul() -> bool:
    """Whether compiling a function would leave MATMUL other than it is now.

    Every compilation writes what cuda/matmul resolves to into the cell itself, so that it follows its parent no more
    (torch >= 2.9), or makes ``medium`` ``high`` (torch 2.8).
    """
    if HAS_CELLS:
        means = _get("cuda", "matmul")
        return bool(means != "none" and means == _get("cuda", "all"))
    return bool(_C._get_float32_matmul_precision() == "medium")


MATMUL = Cell("float32 matmul precision", "process", _read_matmul, _write_matmul)


def matmul(word: str) -> Edit:
    """The edit that does what `torch.set_float32_matmul_precision` does."""
    cells = _WRITTEN_BY_LEGACY[word] if HAS_CELLS else ("none", "none")
    return always(Matmul(word, *cells, cells[0]))


def explicit_matmul(beneath: Matmul) -> Matmul:
    """The edit that makes cuda/matmul keep its meaning while its parent changes."""
    if not HAS_CELLS or beneath.cuda != "none":
        return beneath
    meant = "tf32" if beneath.means == "tf32" else "ieee"
    return beneath._replace(cuda=meant, means=meant)


def shown_matmul(raw: Matmul) -> str:
    """The word of `torch.set_float32_matmul_precision` that says what matrix products do."""
    if not HAS_CELLS:
        return raw.legacy
    mkldnn = raw.mkldnn if raw.mkldnn != "none" else _get("mkldnn", "all")
    if mkldnn == "bf16":
        return "medium"
    return "high" if raw.means == "tf32" else "highest"


# ------------------------------------------------------------------------------------- convolution and rnn on cuDNN


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


_MAY_BE_DEFAULT = ("default", UNDECIDED)
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
    if flag and _get("cuda", "all") == "none":
        # A torch that nobody has touched is read without a write.
        return _AT_START
    conv, rnn, own = _leaf("cuda", "conv"), _leaf("cuda", "rnn"), _all("cuda")
    if flag is None:
        conv = _decided("conv") if conv == UNDECIDED else conv
        rnn = _decided("rnn") if rnn == UNDECIDED else rnn
        flag = _allow_tf32(conv, rnn)
    return Cudnn(flag, own, conv, rnn)


def _allow_tf32(conv: str, rnn: str) -> bool:
    """The flag of `torch.backends.cudnn.allow_tf32` where its getter raises, from the raw leaves."""
    conv_is, rnn_is = _get("cuda", "conv") == "tf32", _get("cuda", "rnn") == "tf32"
    if conv_is == rnn_is:
        return not conv_is
    if "default" in (conv, rnn):
        # Whoever writes the flag overwrites both leaves, so it is still what torch starts with.
        return True
    operation, raw = ("conv", conv) if conv_is else ("rnn", rnn)
    _set("cuda", operation, "ieee")
    try:
        return bool(_C._get_cudnn_allow_tf32())
    except RuntimeError:
        return True
    finally:
        _set("cuda", operation, raw)


def _as_left(over: Cudnn) -> bool:
    """Whether everything still reads as it was left, so that what is in force is known without probing."""
    if _get("cuda", "all") != over.all:
        return False
    readings = []
    for operation, raw in (("conv", over.conv), ("rnn", over.rnn)):
        expected = {UNDECIDED: "tf32", "default": over.all}.get(raw, raw)
        if expected == "none" or _get("cuda", operation) != expected:
            return False
        readings.append(expected == "tf32")
    return _flag() == (over.allow_tf32 if readings == [over.allow_tf32] * 2 else None)


def _write_cudnn(raw: Cudnn, over: Cudnn) -> None:
    if not HAS_CELLS:
        _C._set_cudnn_allow_tf32(raw.allow_tf32)
        return
    if raw is _AT_START and over is _AT_START and _flag() and _get("cuda", "all") == "none":
        return
    if not _as_left(over):
        over = _read_cudnn()
    conv, rnn = over.conv, over.rnn
    if raw.allow_tf32 != over.allow_tf32:
        _C._set_cudnn_allow_tf32(raw.allow_tf32)
        conv = rnn = "tf32" if raw.allow_tf32 else "none"
    if raw.all != over.all:
        _set("cuda", "all", raw.all)
    for operation, wanted, current in (("conv", raw.conv, conv), ("rnn", raw.rnn, rnn)):
        if wanted not in _MAY_BE_DEFAULT:
            if wanted != current:
                _set("cuda", operation, wanted)
            continue
        reading = "tf32" if wanted == UNDECIDED else _by_default(raw.all)
        if _get("cuda", operation) != reading:
            _set("cuda", operation, reading)


def _by_default(own: str) -> str:
    """What a ``default`` leaf reads: all that can be put back once somebody has overwritten it."""
    inherited: str = own if own != "none" else _get("generic", "all")
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
    own = _all("cuda")
    other = "tf32" if _get("cuda", operation) == "ieee" else "ieee"
    _set("cuda", "all", other)
    try:
        return "default" if _get("cuda", operation) == other else "tf32"
    finally:
        _set("cuda", "all", own)


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
        if any(leaf in _MAY_BE_DEFAULT for leaf in leaves):
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
            leaf = raw.all if raw.all != "none" or not HAS_CELLS else _get("generic", "all")
        shown.append("tf32" if leaf in ("tf32", UNDECIDED) else "ieee")
    conv, rnn = shown
    return conv if conv == rnn else f"conv {conv}, rnn {rnn}"


# --------------------------------------------------------------------------------------- convolution and rnn, oneDNN


class Mkldnn(NamedTuple):
    """Raw state of float32 convolutions and recurrent nets on oneDNN: cells mkldnn/conv and mkldnn/rnn."""

    conv: str
    rnn: str


def _read_mkldnn() -> Mkldnn:
    return Mkldnn(_leaf("mkldnn", "conv"), _leaf("mkldnn", "rnn"))


def _write_mkldnn(raw: Mkldnn, over: Raw) -> None:
    _set("mkldnn", "conv", raw.conv)
    _set("mkldnn", "rnn", raw.rnn)


MKLDNN = Cell("oneDNN float32 precision", "process", _read_mkldnn, _write_mkldnn) if HAS_CELLS else None


def shown_mkldnn(raw: Mkldnn) -> str:
    """The precision in force, or both where convolutions and recurrent nets differ."""
    inherited = _get("mkldnn", "all")
    conv, rnn = ({"none": inherited}.get(leaf, leaf) for leaf in raw)
    return str({"none": "ieee"}.get(conv, conv) if conv == rnn else f"conv {conv}, rnn {rnn}")
