"""Puts float32 precision back as it was, exactly, whatever was done to it.

Since torch 2.13 two cells start as ``default``, which no setter can write again. A test that starts from arbitrary
precision would spoil it for every test after it, so this writes the cells where they lie in memory; where they cannot
be found, what would spoil them runs in a child.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tests.laws.look import precision_cells
from tests.laws.violation import Violation
from tests.witness.children import in_child

_C: Any = torch._C
HAS_CELLS = hasattr(_C, "_set_fp32_precision_setter")


@contextmanager
def _put_back() -> Iterator[None]:
    """Precision is as it was before afterwards. The two older values must be readable, as they are in a fresh torch."""
    cells = {at: ctypes.c_int.from_address(at).value for at in precision_cells().values()}
    matmul, convolution = _C._get_float32_matmul_precision(), _C._get_cudnn_allow_tf32()
    try:
        yield
    finally:
        _C._set_float32_matmul_precision(matmul)
        _C._set_cudnn_allow_tf32(convolution)
        for at, value in cells.items():
            ctypes.c_int.from_address(at).value = value


def isolated(check: Callable[[], object]) -> None:
    """Runs `check`, which may leave float32 precision in any state, and undoes that.

    Raises:
        Violation: and whatever else `check` raises.
    """
    if precision_cells() or not HAS_CELLS:
        with _put_back():
            check()
    else:
        in_fork(check)


def in_fork(check: Callable[[], object]) -> None:
    """Runs `check`, which may leave anything behind, in a child.

    Raises:
        Violation: `check` raised it.
    """

    def told() -> str:
        try:
            check()
        except Violation as broken:
            return str(broken)
        return ""

    answer = in_child(told, seconds=60)
    if answer.crash is not None:
        raise RuntimeError(answer.crash)
    if answer.value:
        raise Violation(answer.value)
