"""Which kernels torch.nn.functional.scaled_dot_product_attention may choose among."""

from __future__ import annotations

from typing import Any

import torch

from torchturbo.hardware import Hardware
from torchturbo.settings._base import cell, simple


def _gpu_only(hardware: Hardware, value: Any) -> str | None:
    return None if hardware.gpus else "this attention kernel runs on NVIDIA GPUs, and there is none here"


flash_sdp = simple(
    cell("_get_flash_sdp_enabled", "_set_sdp_use_flash"),
    help="May attention use FlashAttention: torch.backends.cuda.enable_flash_sdp (the CPU's kernel heeds it too).",
)

mem_efficient_sdp = simple(
    cell("_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient"),
    help="May attention use the memory-efficient kernel: torch.backends.cuda.enable_mem_efficient_sdp.",
    why_not=_gpu_only,
)

cudnn_sdp = simple(
    cell("_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn"),
    help="May attention use cuDNN: torch.backends.cuda.enable_cudnn_sdp.",
    why_not=_gpu_only,
)


def _cudnn_told() -> str | None:
    """Why attention that is to give the same bits twice goes without cuDNN."""
    if not torch._C._get_deterministic_algorithms() or torch._C._get_cudnn_sdp_enabled():
        return None
    return (
        "cuDNN's attention has no deterministic backward; FlashAttention and the memory-efficient kernel have one, "
        "which torch takes where deterministic=True"
    )


cudnn_sdp.told = _cudnn_told

math_sdp = simple(
    cell("_get_math_sdp_enabled", "_set_sdp_use_math"),
    help="May attention use plain matrix products, which every input can: torch.backends.cuda.enable_math_sdp.",
)
