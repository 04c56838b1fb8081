"""What is tried: changes of one option or few, what is likely to bring most first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from torchturbo.hardware import Hardware

Change = Mapping[str, object]


class Uses(NamedTuple):
    """What a step uses, of which some options are.

    Attributes:
        loaders: whether it makes data loaders.
        images: whether its modules are called with images or volumes.
        optimizers: whether it steps any.
    """

    loaders: bool
    images: bool
    optimizers: bool


def changes(hardware: Hardware, uses: Uses) -> Iterator[Change]:
    """What may make a step faster on a machine, in the order in which it is tried.

    What has no effect here is found out when it is tried. Compiling comes after what is cheap to try, since it takes
    long, and before what only matters once the rest is settled.

    Args:
        hardware: the machine.
        uses: what the step uses.
    """
    if uses.loaders:
        yield {"num_workers": "auto"}
        for workers in dict.fromkeys((1, hardware.cpu.cores // 2, hardware.cpu.cores)):
            yield {"num_workers": workers}
        yield {"pin_memory": True}
        yield {"prefetch_factor": 4}
    yield {"autocast": "bf16"}
    if hardware.has_fp16_tensor_cores:
        yield {"autocast": "fp16"}
    yield {"tf32": True}
    if uses.optimizers:
        yield {"fused_optimizer": True}
    if uses.images:
        yield {"channels_last": True}
    yield {"cudnn_benchmark": True}
    yield {"compile": "default"}
    if hardware.gpus:
        yield {"compile": "reduce-overhead"}
        yield {"compile": "max-autotune"}
    yield {"matmul_precision": "medium"}
    yield {"mkldnn_precision": "bf16"}
    yield {"fp16_accumulation": True}
    yield {"fp16_reduction": True, "bf16_reduction": True}
    for kernel in ("cudnn_sdp", "flash_sdp", "mem_efficient_sdp"):
        yield {kernel: False}
    now, cores = torch.get_num_threads(), hardware.cpu.cores
    for threads in dict.fromkeys((cores, cores // 2, now // 2, 1)):
        if threads >= 1 and threads != now:
            yield {"num_threads": threads}
