"""Where torch's own getters of float32 precision raise: which, why, and what to write instead.

torch >= 2.9 has two ways to say the same thing and keeps both answers. Where they differ, the getters of the
older way raise, and so does whatever asks them, such as inductor when it tunes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchturbo._report.data import Contradiction
from torchturbo.settings._cudnn import CUDNN, shown_cudnn
from torchturbo.settings._matmul import MATMUL, shown_matmul

_BACKENDS: Any = torch.backends
_GETTERS: dict[str, Callable[[], object]] = {
    "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision,
    "torch.backends.cuda.matmul.allow_tf32": lambda: _BACKENDS.cuda.matmul.allow_tf32,
    "torch.backends.cudnn.allow_tf32": lambda: _BACKENDS.cudnn.allow_tf32,
}


def _raise(*getters: str) -> tuple[str, ...]:
    """Those of the getters that raise now."""
    raising = []
    for getter in getters:
        try:
            _GETTERS[getter]()
        except RuntimeError:
            raising.append(getter)
    return tuple(raising)


def contradictions() -> tuple[Contradiction, ...]:
    """Each place where a getter raises now."""
    found = (_of_matmul(), _of_cudnn())
    return tuple(contradiction for contradiction in found if contradiction is not None)


def _of_matmul() -> Contradiction | None:
    raising = _raise("torch.get_float32_matmul_precision()", "torch.backends.cuda.matmul.allow_tf32")
    if not raising:
        return None
    raw = MATMUL.read()
    cuda, onednn = _BACKENDS.cuda.matmul.fp32_precision, _BACKENDS.mkldnn.matmul.fp32_precision
    return Contradiction(
        "matmul_precision",
        raising,
        f"torch contradicts itself: the older torch.set_float32_matmul_precision stands at {raw.legacy!r}, the "
        f"newer fp32_precision at {cuda!r} for CUDA and {onednn!r} for oneDNN",
        f"torch.set_float32_matmul_precision({shown_matmul(raw)!r})",
    )


def _of_cudnn() -> Contradiction | None:
    raising = _raise("torch.backends.cudnn.allow_tf32")
    if not raising:
        return None
    raw = CUDNN.read()
    conv, rnn = _BACKENDS.cudnn.conv.fp32_precision, _BACKENDS.cudnn.rnn.fp32_precision
    return Contradiction(
        "cudnn_precision",
        raising,
        f"torch contradicts itself: the older torch.backends.cudnn.allow_tf32 stands at {raw.allow_tf32}, the "
        f"newer fp32_precision at {conv!r} for convolutions and {rnn!r} for recurrent nets",
        _instead(tf32=shown_cudnn(raw) == "tf32"),
    )


def _instead(*, tf32: bool) -> str:
    if tf32 or _BACKENDS.cudnn.fp32_precision != "tf32":
        return f"torch.backends.cudnn.allow_tf32 = {tf32}"
    # The older setting then leaves both to follow their parent, which says tf32.
    return (
        "torch.backends.cudnn.allow_tf32 = False; "
        "torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = 'ieee'"
    )
