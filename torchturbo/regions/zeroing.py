"""Gradients that no longer take memory between a step and the next backward, in loops that set them to zero.

`torchturbo.regions._zeroing` does it, and has optimizers see the zeros.
"""

from __future__ import annotations

from torchturbo.regions._zeroing import ASKED, told
from torchturbo.settings._base import BOOL, Setting, same
from torchturbo.settings._edits import always

set_to_none = Setting(
    help="Let go of gradients where zero_grad(set_to_none=False) would fill them with zeros; steps still see zeros.",
    values=BOOL,
    cells=(ASKED,),
    edits=lambda value, hardware: ((ASKED, always(value)),),
    show=same,
    told=told,
)
