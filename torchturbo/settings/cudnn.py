"""cuDNN: whether it is used, how it chooses its kernels, and what float32 convolutions and recurrent nets use."""

from __future__ import annotations

from typing import Any

import torch

from torchturbo.hardware import Hardware
from torchturbo.settings._base import Setting, Write, cell, choice, number, simple
from torchturbo.settings._cudnn import CUDNN, cudnn, shown_cudnn
from torchturbo.settings._matmul import MATMUL, explicit_matmul


def _without_gpu(hardware: Hardware, value: Any) -> str | None:
    return None if hardware.gpus else "cuDNN runs on NVIDIA GPUs, and there is none here"


def _precision_why_not(hardware: Hardware, value: str) -> str | None:
    if value == "ieee" or not hardware.gpus or hardware.has_tf32:
        return _without_gpu(hardware, value)
    return f"TF32 needs compute capability 8.0, and {hardware.gpus[0].name} does not have it"


def _precision_edits(value: str, hardware: Hardware) -> tuple[Write, ...]:
    return (MATMUL, explicit_matmul), (CUDNN, cudnn(value))


cudnn_precision = Setting(
    help="What float32 convolutions and recurrent nets on cuDNN use; one alone could not be put back on torch 2.13.",
    values=choice("ieee", "tf32"),
    cells=(CUDNN,),
    edits=_precision_edits,
    show=shown_cudnn,
    why_not=_precision_why_not,
)

cudnn_enabled = simple(
    cell("_get_cudnn_enabled", "_set_cudnn_enabled"),
    help="Whether cuDNN is used at all: torch.backends.cudnn.enabled.",
    why_not=_without_gpu,
)

cudnn_benchmark = simple(
    cell("_get_cudnn_benchmark", "_set_cudnn_benchmark"),
    help="Time cuDNN's kernels for each new shape and keep the fastest: torch.backends.cudnn.benchmark.",
    why_not=_without_gpu,
)

cudnn_benchmark_limit = simple(
    cell("_cuda_get_cudnn_benchmark_limit", "_cuda_set_cudnn_benchmark_limit"),
    help="How many kernels cudnn_benchmark tries, 0 for all: torch.backends.cudnn.benchmark_limit.",
    values=number(at_least=0),
    why_not=_without_gpu,
    missing=f"this build of torch ({torch.__version__}) has no cuDNN",
)

cudnn_deterministic = simple(
    cell("_get_cudnn_deterministic", "_set_cudnn_deterministic"),
    help="Only kernels of cuDNN that give the same bits twice: torch.backends.cudnn.deterministic.",
    why_not=_without_gpu,
)
