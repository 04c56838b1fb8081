"""Raw float32 precision cells, which torch's own getters do not tell.

torch >= 2.9 keeps nine cells (generic/all; all, matmul, conv, rnn of cuda and of mkldnn), each ``none`` (follow the
parent) or explicit, beside two older values: the word of `torch.set_float32_matmul_precision` and the flag
`torch.backends.cudnn.allow_tf32`. Getters of cells answer with the *resolved* value, getters of the older values
raise when cells contradict them, and setters of the older values overwrite two cells each. From torch 2.13 the cells
cuda/conv and cuda/rnn start as ``default`` (tf32 unless a parent says otherwise), which nobody can write again once
it has been overwritten.

So each cell is read raw, by letting its parents change for a moment where (and only where) the reading is ambiguous.
A torch whose precision nobody has touched is read without any write.
"""

from __future__ import annotations

from typing import Any

import torch

from torchturbo.settings._base import TORCH

get: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
put: Any = getattr(torch._C, "_set_fp32_precision_setter", None)
HAS_CELLS = get is not None
"""torch >= 2.9. Before, the two older values are all there is."""
HAS_DEFAULT = TORCH >= (2, 13)
"""The cells cuda/conv and cuda/rnn can be ``default``."""

UNDECIDED = "tf32 or default"
"""A leaf that reads tf32 with no parent in force: explicit or ``default``, which only a write would tell."""


def raw_all(backend: str) -> str:
    """The raw value of a backend's own cell, which its operations inherit."""
    value: str = get(backend, "all")
    generic: str = get("generic", "all")
    if value == "none" or value != generic:
        return value
    other = "tf32" if generic == "ieee" else "ieee"
    try:
        put("generic", "all", other)
        return "none" if get(backend, "all") == other else value
    finally:
        put("generic", "all", generic)


def raw_leaf(backend: str, operation: str) -> str:
    """The raw value of one operation's cell."""
    value: str = get(backend, operation)
    may_be_default = HAS_DEFAULT and backend == "cuda" and operation != "matmul"
    generic: str = get("generic", "all")
    parent: str = get(backend, "all")
    if parent == "none" and generic == "none":
        return UNDECIDED if may_be_default and value == "tf32" else value
    if value != parent:
        return value
    own = raw_all(backend)
    other = "tf32" if value == "ieee" else "ieee"
    try:
        put(backend, "all", other)
        if get(backend, operation) != other:
            return value
        if not may_be_default:
            return "none"
        put("generic", "all", "none")
        put(backend, "all", "none")
        return "default" if get(backend, operation) == "tf32" else "none"
    finally:
        put("generic", "all", generic)
        put(backend, "all", own)
