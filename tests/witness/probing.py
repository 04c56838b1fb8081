"""Shows hidden precision state by what it does next: a fixed sequence of further setters, all readings after each.

A precision cell that says ``ieee`` may say so itself or by its parent; a convolution cell that says ``tf32`` may be
told so or be torch's ``default``, which nobody can write. Two states that read the same and are not the same part
ways under this sequence. It destroys what it shows, so it comes last in a child's life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from tests.witness.getters import Reading, read_one
from tests.witness.memory import CELLS

HAS_CELLS = hasattr(torch._C, "_set_fp32_precision_setter")
LEGACY = ("_get_float32_matmul_precision", "_get_cublas_allow_tf32", "_get_cudnn_allow_tf32")

# (backend, operation, precision): first the parents move over untouched leaves, in an order in which every parent is
# seen under every other; then the leaves one by one, so that the two legacy values are seen through their checks.
PARENTS_MOVE = (
    ("generic", "all", "tf32"),
    ("generic", "all", "bf16"),
    ("generic", "all", "ieee"),
    ("cuda", "all", "tf32"),
    ("mkldnn", "all", "bf16"),
    ("generic", "all", "none"),
    ("cuda", "all", "ieee"),
    ("mkldnn", "all", "tf32"),
    ("cuda", "all", "none"),
    ("mkldnn", "all", "none"),
)
LEAVES_MOVE = tuple(
    (backend, op, precision)
    for backend, precisions in (("cuda", ("tf32", "ieee")), ("mkldnn", ("tf32", "bf16", "ieee")))
    for op in ("matmul", "conv", "rnn")
    for precision in precisions
)


def probe() -> Reading:
    """Run the sequence on the state as it is now. What is left afterwards is of no use."""
    found = {"probe, before": _precision()}
    for step, (name, action) in enumerate(_steps()):
        outcome = read_one(action)
        found[f"probe {step:02} {name}"] = f"{_precision()} | {outcome}"
    return found


def _steps() -> Iterator[tuple[str, Callable[[], object]]]:
    if HAS_CELLS:
        for cell in PARENTS_MOVE + LEAVES_MOVE:
            yield "{}/{}:={}".format(*cell), partial(torch._C._set_fp32_precision_setter, *cell)
    # The legacy setters write what they own and two cells each: what stays as it was shows who owns what.
    yield "cudnn.allow_tf32:=False", lambda: torch._C._set_cudnn_allow_tf32(False)
    yield "matmul:=high", lambda: torch._C._set_float32_matmul_precision("high")
    yield "cudnn.allow_tf32:=True", lambda: torch._C._set_cudnn_allow_tf32(True)
    yield "matmul:=highest", lambda: torch._C._set_float32_matmul_precision("highest")


def _precision() -> str:
    cells = [read_one(torch._C._get_fp32_precision_getter, *cell) for cell in CELLS] if HAS_CELLS else []
    # The messages are the same for every contradiction, so that a raise says all by itself.
    legacy = [read_one(getattr(torch._C, name)).split(":")[0] for name in LEGACY]
    return " ".join(cells + legacy)
