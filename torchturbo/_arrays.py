"""What NumPy gets of tensors that autocast has made bfloat16, in scripts that know nothing of autocast.

NumPy has no bfloat16: `Tensor.numpy` of one raises, where the same script in float32 has an array. Code that opens a
block writes ``.float()`` there; a script under `torchturbo run` is not to be changed, so there it gets float32.
"""

from __future__ import annotations

from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo._turbo import turbo

_NUMPY: Any = torch.Tensor.numpy


def half_asked(around: turbo) -> str | None:
    """What a block computes forward passes in: ``"bf16"`` or ``"fp16"``; None where it leaves them as they are.

    Args:
        around: the block.
    """
    decisions = {decision.name: decision for decision in around._prepared().plan.decisions}
    decision = decisions.get("autocast")
    value = None if decision is None or decision.refused is not None else decision.value
    return value if isinstance(value, str) else None


def float_arrays(around: turbo) -> None:
    """Has `Tensor.numpy` give float32 of bfloat16 in this process from here on, if a block makes tensors bfloat16.

    Args:
        around: the block.
    """
    if half_asked(around) == "bf16":
        setattr(torch.Tensor, "numpy", _numpy)  # noqa: B010  (an assignment has other types)


@untraced
def _numpy(self: torch.Tensor, *, force: bool = False) -> Any:
    if self.dtype is torch.bfloat16:
        self = self.float()
    return _NUMPY(self, force=force)


_numpy.__name__, _numpy.__qualname__, _numpy.__doc__ = "numpy", "Tensor.numpy", _NUMPY.__doc__
