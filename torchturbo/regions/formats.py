"""The order in memory of images: `torch.channels_last` for what convolutional nets are called with.

`torchturbo.regions._formats` hands it to them; their weights stay as they are.
"""

from __future__ import annotations

from torchturbo.regions._formats import ASKED, told
from torchturbo.settings._base import BOOL, Setting, same
from torchturbo.settings._edits import always

channels_last = Setting(
    help="Hand outermost modules their images in torch.channels_last, in which many convolutions are faster.",
    values=BOOL,
    cells=(ASKED,),
    edits=lambda value, hardware: ((ASKED, always(value)),),
    show=same,
    told=told,
)
