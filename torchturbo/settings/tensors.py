"""What new tensors are made of."""

from __future__ import annotations

from typing import Any

import torch

from torchturbo.settings._base import Cell, Values, simple
from torchturbo.settings._edits import Raw

_C: Any = torch._C
_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def _write(raw: torch.dtype, over: Raw) -> None:
    _C._set_default_dtype(raw)


_SHORT: dict[object, object] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}

default_dtype = simple(
    Cell("default dtype", "process", torch.get_default_dtype, _write),
    help="The dtype of new floating-point tensors: torch.set_default_dtype.",
    values=Values(tuple(_DTYPES), _SHORT | {dtype: word for word, dtype in _DTYPES.items()}),
    raw=lambda word: _DTYPES[word],
    show=lambda raw: str(raw).removeprefix("torch."),
)
