"""Which Intel GPUs torch calls ``xpu``. How many there are is told by itself, all else once torch has started them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torchturbo.hardware._base import Xpu


@dataclass(frozen=True, slots=True)
class Found:
    """The GPUs, and what there is to say of them.

    Attributes:
        xpus: those that torch can use, in its order.
        reasons: sentences on what is uncertain.
        final: asking again, once torch has started them, would tell nothing new.
    """

    xpus: tuple[Xpu, ...]
    reasons: tuple[str, ...]
    final: bool


def ask() -> Found:
    """The GPUs that torch can use. Starts none of them."""
    count = torch.xpu.device_count()
    if not count:
        return Found((), (), final=True)
    unproven = "torchturbo is unproven on Intel GPUs."
    if not has_started():
        later = "Intel GPUs say what they compute once torch has started them, and it has not yet."
        return Found(tuple(Xpu(index, "Intel GPU") for index in range(count)), (unproven, later), final=False)
    return Found(tuple(map(_asked, range(count))), (unproven,), final=True)


def has_started() -> bool:
    """Whether torch has started XPU in this process."""
    return bool(torch.xpu.is_initialized())  # type: ignore[no-untyped-call]


def _asked(index: int) -> Xpu:
    properties: Any = torch.xpu.get_device_properties(index)

    def fact(name: str) -> Any:
        return getattr(properties, name, None)  # which there are varies with torch's version

    return Xpu(
        index,
        properties.name,
        fact("total_memory"),
        fact("has_bfloat16_conversions"),
        fact("has_fp16"),
        fact("has_subgroup_matrix_multiply_accumulate"),
        fact("driver_version"),
    )
