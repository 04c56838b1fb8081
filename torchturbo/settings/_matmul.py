"""float32 matrix products: the word of `torch.set_float32_matmul_precision` and the two cells that it overwrites."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from torchturbo.settings._base import Cell
from torchturbo.settings._cells import HAS_CELLS, get, put, raw_leaf
from torchturbo.settings._edits import Edit, Raw, always

_C: Any = torch._C


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
    if cuda not in ("none", "ieee", "tf32"):
        # A cell that no word stands for (bfx9, torch 2.15) makes the getter raise by itself: asked without it.
        raw = raw_leaf("cuda", "matmul")
        try:
            put("cuda", "matmul", "ieee")
            return _asked() or _legacy("ieee", mkldnn)
        finally:
            put("cuda", "matmul", raw)
    try:
        _C._get_cublas_allow_tf32()
        agrees = True
    except RuntimeError:
        agrees = False
    if (cuda == "tf32") != agrees:
        return "highest"
    return "high" if mkldnn == "bf16" else "medium"


def _asked() -> str | None:
    """The word as torch tells it, or None where cells contradict it and torch raises."""
    try:
        word: str = _C._get_float32_matmul_precision()
        return word
    except RuntimeError:
        return None


_AT_REST = {word: Matmul(word, "none", "none", "none") for word in _WRITTEN_BY_LEGACY}
"""Where no cell says anything; all there is before torch 2.9."""


def _read_matmul() -> Matmul:
    legacy = _asked()
    if not HAS_CELLS:
        return _AT_REST[str(legacy)]
    cuda, mkldnn = get("cuda", "matmul"), get("mkldnn", "matmul")
    if cuda == "none" and mkldnn == "none" and legacy is not None:
        return _AT_REST[legacy]
    if legacy is None:
        legacy = _legacy(cuda, mkldnn)
    means = cuda
    if cuda != "none":
        cuda = raw_leaf("cuda", "matmul")
    if mkldnn != "none":
        mkldnn = raw_leaf("mkldnn", "matmul")
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
        put("cuda", "matmul", raw.cuda)
    if raw.mkldnn != mkldnn:
        put("mkldnn", "matmul", raw.mkldnn)


def _undo_compiling(raw: Matmul) -> None:
    """Takes back what a compilation has written since `raw` was read, and nothing that somebody else has."""
    if not HAS_CELLS:
        if raw.legacy == "medium" and _C._get_float32_matmul_precision() == "high":
            _C._set_float32_matmul_precision("medium")
    elif raw.cuda == "none" != raw.means == get("cuda", "matmul") and raw_leaf("cuda", "matmul") == raw.means:
        put("cuda", "matmul", "none")


def compiling_changes_matmul() -> bool:
    """Whether compiling a function would leave MATMUL other than it is now.

    Every compilation writes what cuda/matmul resolves to into the cell itself, so that it follows its parent no more
    (torch >= 2.9), or makes ``medium`` ``high`` (torch 2.8).
    """
    if HAS_CELLS:
        parent: str = get("cuda", "all")
        return parent != "none" and parent == get("cuda", "matmul")
    word: str = _C._get_float32_matmul_precision()
    return word == "medium"


MATMUL = Cell("float32 matmul precision", "process", _read_matmul, _write_matmul)


def matmul(word: str) -> Edit:
    """The edit that does what `torch.set_float32_matmul_precision` does."""
    cells = _WRITTEN_BY_LEGACY[word] if HAS_CELLS else ("none", "none")
    return always(Matmul(word, *cells, cells[0]))


@cache
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
    mkldnn = raw.mkldnn if raw.mkldnn != "none" else get("mkldnn", "all")
    if mkldnn == "bf16":
        return "medium"
    return "high" if raw.means == "tf32" else "highest"
