"""Every option as a typed keyword, for editors and type checkers.

Written by tools/generate.py from the catalogue of options: change that, not this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import torch


class Options(TypedDict, total=False):
    """The keywords of `turbo`, `accelerate` and `Profile`: which options there are, and what each takes."""

    flash_sdp: bool
    """May attention use FlashAttention: torch.backends.cuda.enable_flash_sdp (the CPU's kernel heeds it too)."""

    mem_efficient_sdp: bool
    """May attention use the memory-efficient kernel: torch.backends.cuda.enable_mem_efficient_sdp."""

    cudnn_sdp: bool
    """May attention use cuDNN: torch.backends.cuda.enable_cudnn_sdp."""

    math_sdp: bool
    """May attention use plain matrix products, which every input can: torch.backends.cuda.enable_math_sdp."""

    grad: bool
    """Whether operations are recorded for backward: torch.set_grad_enabled."""

    anomaly: bool
    """Name the forward call behind a failing or NaN backward, slowly: torch.autograd.set_detect_anomaly."""

    fp16_reduction: Literal[True, False, "no_split_k"]
    """May fp16 matrix products add their parts up in fp16, or (no_split_k) not even have parts:
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction.
    """

    bf16_reduction: Literal[True, False, "no_split_k"]
    """May bf16 matrix products add their parts up in bf16, or (no_split_k) not even have parts:
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction.
    """

    fp16_accumulation: bool
    """Add fp16 matrix products up in fp16 throughout: torch.backends.cuda.matmul.allow_fp16_accumulation."""

    blas_library: Literal["cublas", "cublaslt"]
    """The library that torch prefers for blas: torch.backends.cuda.preferred_blas_library."""

    linalg_library: Literal["default", "cusolver", "magma"]
    """The library that torch prefers for linalg: torch.backends.cuda.preferred_linalg_library."""

    cublas_workspace: str
    """cuBLAS's workspace, which cuBLAS reads when CUDA starts: the environment's CUBLAS_WORKSPACE_CONFIG."""

    cudnn_precision: Literal["ieee", "tf32"]
    """What float32 convolutions and recurrent nets on cuDNN use; one alone could not be put back on torch 2.13."""

    cudnn_enabled: bool
    """Whether cuDNN is used at all: torch.backends.cudnn.enabled."""

    cudnn_benchmark: bool
    """Time cuDNN's kernels for each new shape and keep the fastest: torch.backends.cudnn.benchmark."""

    cudnn_benchmark_limit: int
    """How many kernels cudnn_benchmark tries, 0 for all: torch.backends.cudnn.benchmark_limit."""

    cudnn_deterministic: bool
    """Only kernels of cuDNN that give the same bits twice: torch.backends.cudnn.deterministic."""

    deterministic: Literal[False, "warn", True]
    """Only algorithms that give the same bits twice, else an error, or a warning that names the operation and the line
    that called it: torch.use_deterministic_algorithms.
    """

    fill_uninitialized_memory: bool
    """Fill new tensors while `deterministic` is on (slow): torch.utils.deterministic.fill_uninitialized_memory."""

    matmul_precision: Literal["highest", "high", "medium"]
    """What float32 matrix products may round to: torch.set_float32_matmul_precision."""

    tf32: bool
    """TF32 for matrix products, convolutions and recurrent nets at once."""

    alloc_conf: str
    """How torch's allocator cuts GPU memory, which it reads when CUDA starts: the environment's PYTORCH_ALLOC_CONF."""

    empty_cache: bool
    """Collect garbage and give the GPU's unused memory back on entry, once: torch.cuda.empty_cache."""

    mkldnn_precision: Literal["ieee", "tf32", "bf16"]
    """What float32 convolutions and recurrent nets on oneDNN may round to: torch.backends.mkldnn.conv and .rnn."""

    mkldnn_enabled: bool
    """Whether oneDNN is used at all: torch.backends.mkldnn.enabled."""

    mkldnn_deterministic: bool
    """Only kernels of oneDNN that give the same bits twice: torch.backends.mkldnn.deterministic."""

    default_dtype: Literal["float32", "float64", "bfloat16", "float16"] | torch.dtype
    """The dtype of new floating-point tensors: torch.set_default_dtype."""

    num_threads: int
    """How many threads one operation called from this thread uses on the CPU: torch.set_num_threads."""

    accumulate: int
    """Micro-batches for each step: backward averages over them, and optimizers and schedulers step after the last."""

    autocast: Literal["auto", "bf16", "fp16"] | bool | torch.dtype | None
    """Compute forward passes in half precision where it is safe: torch.autocast, made safe around a whole loop."""

    checkpoint: bool | Literal["auto"] | Sequence[type | str] | None
    """Compute activations of repeated blocks again in backward, and do not keep them: torch.utils.checkpoint."""

    compile: (
        bool
        | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
        | Mapping[str, object]
        | None
    )
    """Run the outermost modules that are called compiled, in place, and never backward or a step: torch.compile."""

    channels_last: bool
    """Hand outermost modules their images in torch.channels_last, in which many convolutions are faster."""

    fused_optimizer: Literal[False, "auto", True]
    """Steps of Adam, AdamW, SGD and Adagrad by torch's fused kernels: fused=True, in optimizers made without it."""

    num_workers: int | Literal["auto"]
    """Processes that fetch batches, for data loaders made in the block whose call does not say."""

    prefetch_factor: int | Literal["auto"]
    """Batches that each worker fetches ahead, for data loaders made in the block whose call does not say."""

    pin_memory: Literal[True, False, "auto"]
    """Batches in pinned memory, copied to the GPU faster, for data loaders made in the block whose call does not say.
    """

    persistent_workers: Literal[True, False, "auto"]
    """Workers that are kept from epoch to epoch, for data loaders made in the block whose call does not say."""

    monitor: Literal[False, "auto", "lines", "json"] | bool | None
    """Watch loops over data loaders: speed, waiting, GPU, memory, and once an alert that names the cause."""

    prefetch: bool
    """Move batches of data loaders iterated in the block to the GPU, the next while one is used."""

    init_scale: float
    """The scale of gradients that fp16 training begins with: init_scale of torch.amp.GradScaler."""

    growth_factor: float
    """What the scale is multiplied by after growth_interval steps that all ran: growth_factor of torch.amp.GradScaler.
    """

    backoff_factor: float
    """What the scale is multiplied by when a step is skipped: backoff_factor of torch.amp.GradScaler."""

    growth_interval: int
    """Steps in a row that must run before the scale grows: growth_interval of torch.amp.GradScaler."""

    seed: int
    """Start the random numbers of Python, NumPy and torch, on every device, from this seed; put back afterwards."""

    set_to_none: bool
    """Let go of gradients where zero_grad(set_to_none=False) would fill them with zeros; steps still see zeros."""
