"""Leaks to plant: code that a careless test has, and the line that has to be said of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plant:
    """A leak.

    Attributes:
        name: what it is called.
        code: statements that leave it.
        told: how it is told: the name, torch's words, and both values.
    """

    name: str
    code: str
    told: str

    def __str__(self) -> str:
        return self.name


THREADS = torch.get_num_threads()
PLANTS = [
    Plant(
        "cudnn_benchmark",
        "torch.backends.cudnn.benchmark = True",
        "cudnn_benchmark (torch.backends.cudnn.benchmark): False before, True after",
    ),
    Plant(
        "default_dtype",
        "torch.set_default_dtype(torch.float64)",
        "default_dtype (torch.set_default_dtype): 'float32' before, 'float64' after",
    ),
    Plant(
        "default_device",
        "torch.set_default_device('meta')",
        "default_device (torch.set_default_device): not set before, 'meta' after",
    ),
    Plant(
        "matmul_precision",
        "torch.set_float32_matmul_precision('medium')",
        "matmul_precision (torch.set_float32_matmul_precision): (legacy highest",
    ),
    Plant(
        "num_threads",
        f"torch.set_num_threads({THREADS + 1})",
        f"num_threads (torch.set_num_threads): {THREADS} before, {THREADS + 1} after",
    ),
    Plant("grad", "torch.set_grad_enabled(False)", "grad (torch.set_grad_enabled): True before, False after"),
    Plant(
        "anomaly",
        "torch.autograd.set_detect_anomaly(True)",
        "anomaly (torch.autograd.set_detect_anomaly): False before, True after",
    ),
    Plant(
        "deterministic",
        "torch.set_deterministic_debug_mode('warn')",
        "deterministic (torch.use_deterministic_algorithms): False before, 'warn' after",
    ),
    Plant(
        "autocast",
        "torch.autocast('cpu', dtype=torch.float16).__enter__()",
        "autocast (torch.autocast('cpu')): off (torch.bfloat16) before, on (torch.float16) after",
    ),
    Plant(
        "autocast_cache",
        "torch.set_autocast_cache_enabled(False)",
        "autocast_cache (torch.set_autocast_cache_enabled): True before, False after",
    ),
    Plant(
        "inference_mode",
        "kept.append(torch.inference_mode()); kept[-1].__enter__()",
        "inference_mode (torch.inference_mode): False before, True after",
    ),
    Plant(
        "printoptions",
        "torch.set_printoptions(precision=7)",
        "printoptions (torch.set_printoptions): (precision 4) before, (precision 7) after",
    ),
    Plant(
        "OMP_SCHEDULE",
        "os.environ['OMP_SCHEDULE'] = '13'",
        "OMP_SCHEDULE (os.environ['OMP_SCHEDULE']): not set before, '13' after",
    ),
    Plant(
        "cublas_workspace",
        "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':16:8'",
        "cublas_workspace (os.environ['CUBLAS_WORKSPACE_CONFIG']): None before, ':16:8' after",
    ),
    Plant(
        "module_hooks",
        "torch.nn.modules.module.register_module_forward_hook(hook)",
        "module_hooks (torch.nn.modules.module.register_module_*_hook): none before, hook after",
    ),
    Plant(
        "optimizer_hooks",
        "register_optimizer_step_post_hook(hook)",
        "optimizer_hooks (torch.optim.optimizer.register_optimizer_step_*_hook): none before, hook after",
    ),
    Plant(
        "function_modes",
        "torch.device('meta').__enter__()",
        "function_modes (torch.overrides.TorchFunctionMode): none before, DeviceContext",
    ),
    Plant("block", "turbo('exact').__enter__()", "block (with torchturbo.turbo): none open before, open since "),
    Plant(
        "warn_always",
        "torch.set_warn_always(True)",
        "warn_always (torch.set_warn_always): False before, True after",
    ),
    Plant(
        "sdp_priority_order",
        "torch._C._set_sdp_priority_order([2, 1, 0])",
        "sdp_priority_order (torch.nn.attention.sdpa_kernel(set_priority=True)): [1, 2, 0",
    ),
    Plant(
        "flash_sdp",
        "torch.backends.cuda.enable_flash_sdp(False)",
        "flash_sdp (torch.backends.cuda.enable_flash_sdp): True before, False after",
    ),
    Plant(
        "validate_args",
        "torch.distributions.Distribution.set_default_validate_args(False)",
        "validate_args (torch.distributions.Distribution.set_default_validate_args): True before, False after",
    ),
    Plant(
        "flush_denormal",
        "torch.set_flush_denormal(True)",
        "flush_denormal (torch.set_flush_denormal): False before, True after",
    ),
    Plant(
        "sharing_strategy",
        "torch.multiprocessing.set_sharing_strategy('file_system')",
        "sharing_strategy (torch.multiprocessing.set_sharing_strategy): 'file_descriptor' before, 'file_system' after",
    ),
    Plant("hub_dir", "torch.hub.set_dir('here')", "hub_dir (torch.hub.set_dir): None before, 'here' after"),
    Plant(
        "fastpath",
        "torch.backends.mha.set_fastpath_enabled(False)",
        "fastpath (torch.backends.mha.set_fastpath_enabled): True before, False after",
    ),
    Plant(
        "saved_tensors_hooks",
        "torch.autograd.graph.saved_tensors_hooks(hook, hook).__enter__()",
        "saved_tensors_hooks (torch.autograd.graph.saved_tensors_hooks): None before, (<function hook",
    ),
    Plant(
        "start_method",
        "torch.multiprocessing.set_start_method('spawn', force=True)",
        "start_method (torch.multiprocessing.set_start_method): 'fork",
    ),
    Plant(
        "process_group",
        "torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)",
        "process_group (torch.distributed.init_process_group): False before, True after",
    ),
    Plant(
        "swap_module_params_on_conversion",
        "torch.__future__.set_swap_module_params_on_conversion(True)",
        "swap_module_params_on_conversion (torch.__future__.set_swap_module_params_on_conversion): False before, True",
    ),
]
if hasattr(torch._C, "_set_fp32_precision_setter"):
    PLANTS += [
        Plant(
            "fp32_precision",
            "torch.backends.fp32_precision = 'ieee'",
            "fp32_precision (torch.backends.fp32_precision): 'none' before, 'ieee' after",
        ),
        Plant(
            "cudnn_precision",
            "torch.backends.cudnn.fp32_precision = 'ieee'",
            "cudnn_precision (torch.backends.cudnn.allow_tf32): (",
        ),
    ]

PREAMBLE = """
import os
import pytest
import torch
import torch.distributed
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchturbo import turbo

kept = []


def hook(*arguments):
    return None
"""
