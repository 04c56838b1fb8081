"""Arbitrary states to start from: what may have happened in a process before anybody opened a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import torch

from tests.laws.pristine import HAS_CELLS
from tests.witness import setters
from tests.witness.memory import CELLS

_C: Any = torch._C

Step = tuple[str, Any]
"""One call of a setter: which, and with what."""

PRECISIONS = ("none", "ieee", "tf32", "bf16", "bfx9") if HAS_CELLS else ()
_STEPS: tuple[Step, ...] = (
    *(("matmul", word) for word in ("highest", "high", "medium")),
    *((name, on) for name in ("cuda.matmul.allow_tf32", "cudnn.allow_tf32") for on in (True, False)),
    *((f"{backend}/{operation}", precision) for backend, operation in CELLS for precision in PRECISIONS),
)
_OLDER = {
    "matmul": _C._set_float32_matmul_precision,
    "cuda.matmul.allow_tf32": _C._set_cublas_allow_tf32,
    "cudnn.allow_tf32": _C._set_cudnn_allow_tf32,
}

precision: st.SearchStrategy[list[Step]] = st.lists(st.sampled_from(_STEPS), max_size=8)
"""Calls of every setter of float32 precision, old and new, in any order."""

COMPILE: Step = ("compile", None)
"""What every compilation does to matrix products."""

MATMUL: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(
        [COMPILE, *(step for step in _STEPS if step[0] in ("matmul", "cuda.matmul.allow_tf32") or "/matmul" in step[0])]
    ),
    max_size=3,
)
"""Calls that change matrix products only."""

CONVOLUTION: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(
        [step for step in _STEPS if step[0] == "cudnn.allow_tf32" or step[0] in ("cuda/all", "cuda/conv", "cuda/rnn")]
    ),
    max_size=3,
)
"""Calls that change convolutions and recurrent nets on cuDNN only."""


def play_precision(steps: Sequence[Step]) -> None:
    """Does the steps. What a version of torch refuses has not happened, as far as torch can be believed."""
    for name, value in steps:
        try:
            if name == "compile":
                _as_compiling_does()
            elif name in _OLDER:
                _OLDER[name](value)
            else:
                _C._set_fp32_precision_setter(*name.split("/"), value)
        except RuntimeError:
            continue


def _as_compiling_does() -> None:
    """What every compilation does to precision: what matrix products mean becomes what their own cell says."""
    if not HAS_CELLS:
        if _C._get_float32_matmul_precision() == "medium":
            _C._set_float32_matmul_precision("high")
        return
    meant = _C._get_fp32_precision_getter("cuda", "matmul")
    if meant != "none":
        _C._set_fp32_precision_setter("cuda", "matmul", meant)


_EVERY = tuple(
    (name, at, arguments)
    for name, group in setters.table().items()
    for at, setter in enumerate(group)
    if not setter.loads_compiler
    for arguments in setter.values
)

anything: st.SearchStrategy[list[tuple[str, int, tuple[Any, ...]]]] = st.lists(st.sampled_from(_EVERY), max_size=20)
"""Calls of every setter that the witness knows, public and raw, of every area of torch. For use in a child only."""


def play_anything(steps: Sequence[tuple[str, int, tuple[Any, ...]]]) -> None:
    """Does the steps, in a child: contexts among them are entered for good."""
    table = setters.table()
    for name, at, arguments in steps:
        try:
            table[name][at].call(*arguments)
        except (RuntimeError, UserWarning, DeprecationWarning, FutureWarning):
            continue  # some of them store before they refuse, so that the refusal is part of history
