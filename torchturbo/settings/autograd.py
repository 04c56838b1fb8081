"""What autograd records and checks."""

from __future__ import annotations

from typing import Any

import torch

from torchturbo.settings._base import Cell, simple
from torchturbo.settings._edits import Raw

_C: Any = torch._C


def _write_grad(raw: bool, over: Raw) -> None:
    _C._set_grad_enabled(raw)


grad = simple(
    Cell("grad mode", "thread", torch.is_grad_enabled, _write_grad),
    help="Whether operations are recorded for backward: torch.set_grad_enabled.",
)


def _read_anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _write_anomaly(raw: tuple[bool, bool], over: Raw) -> None:
    torch.set_anomaly_enabled(*raw)


anomaly = simple(
    Cell("anomaly detection", "process", _read_anomaly, _write_anomaly),
    help="Name the forward call behind a failing or NaN backward, slowly: torch.autograd.set_detect_anomaly.",
    raw=lambda on: (on, True),
    show=lambda raw: raw[0],
)
