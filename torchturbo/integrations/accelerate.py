"""Hugging Face Accelerate: a block for loops with an `Accelerator`.

Where it enters autocast (``mixed_precision="bf16"``), or has a `GradScaler` (``"fp16"``), both are left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchturbo.integrations._around import UNNAMED, Beside, expect, left
from torchturbo.integrations._needed import needed
from torchturbo.profiles import Profile

with needed("accelerate"):
    from accelerate import Accelerator

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

__all__ = ["turbo_for"]


def turbo_for(
    accelerator: Any, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]
) -> Beside:
    """A `turbo` for loops with this `Accelerator`: what it does itself is left to it.

    Args:
        accelerator: an `accelerate.Accelerator`.
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.

    Raises:
        TargetError: it is no `Accelerator`.
    """
    expect(accelerator, Accelerator, "turbo_for takes an accelerate.Accelerator")
    precision, waits = accelerator.mixed_precision, accelerator.gradient_accumulation_steps
    accumulates: str | None
    if waits > 1:
        accumulates = f"Accelerator(gradient_accumulation_steps={waits})"
    else:
        accumulates = None if accelerator.scaler is None else "the GradScaler of the Accelerator"
    autocast = None if precision == "no" else f"Accelerator(mixed_precision={precision!r})"
    return Beside(profile, left(autocast=autocast, accumulate=accumulates), strict=strict, **options)
