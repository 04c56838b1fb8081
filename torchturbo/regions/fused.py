"""Fused optimizers: torch's own kernels for a whole step, in optimizers that were made without them.

`torch.optim.AdamW(..., fused=True)` computes a step in one pass over the memory, where the default takes a dozen. A
region has the optimizers of an untouched loop do the same: `torchturbo.regions._fused` does it.
"""

from __future__ import annotations

from torchturbo.regions._fused import ASKED, told
from torchturbo.settings._base import Setting, choice, same
from torchturbo.settings._edits import always

fused_optimizer = Setting(
    help="Steps of Adam, AdamW, SGD and Adagrad by torch's fused kernels: fused=True, in optimizers made without it.",
    values=choice(False, "auto", True),
    cells=(ASKED,),
    edits=lambda value, hardware: ((ASKED, always(value)),),
    show=same,
    told=told,
)
