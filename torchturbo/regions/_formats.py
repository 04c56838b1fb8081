"""Images in the order in which convolutions are fastest, without a trace of it in the modules.

Convolutions compute in channels_last where their input or their weights are in it, and hand it on. So it is enough to
hand the outermost module its images in that order: weights stay as they are, and nothing has to be put back. A weight
is brought into that order at each call, which takes little beside the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Args, Kwargs, module_calls

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory format of a batch of images, and of one of volumes, by their dimensions."""


class _Asked(Asked):
    """What a thread's region asks for, and what has come of it since it was opened.

    Attributes:
        inside: whether a module runs, within which the others are.
        told: the classes of the outermost modules, each with how often it was handed images.
    """

    wanted: bool = False

    def begin(self) -> None:
        """Forgets what has come of it."""
        self.inside = False
        self.told: dict[str, int] = {}


@untraced
def _hand(module: Any, args: Args, kwargs: Kwargs) -> Any:
    """Calls a module; the outermost one with its images in the order that is asked for."""
    here = _ASKING.thread.its
    if not here.wanted or here.inside:
        return module_calls.call(module, args, kwargs, False, False)
    count = 0

    def ordered(value: Any) -> Any:
        nonlocal count
        if not isinstance(value, Tensor) or not _can_be_ordered(value):
            return value
        count += 1
        return value.contiguous(memory_format=_FORMATS[value.dim()])

    args, kwargs = tuple(map(ordered, args)), {name: ordered(value) for name, value in kwargs.items()}
    name = type(module).__name__
    here.told[name] = here.told.get(name, 0) + count
    here.inside = True
    try:
        return module_calls.call(module, args, kwargs, False, False)
    except RuntimeError as error:
        if count and "view size is not compatible" in str(error):
            error.add_note(
                "torchturbo: channels_last=True hands the model its images in another order in memory, where .view() "
                "cannot do all that it can in torch's default one: write .reshape() or .flatten(1) there, or leave "
                "channels_last out"
            )
        raise
    finally:
        here.inside = False


def _can_be_ordered(tensor: Tensor) -> bool:
    return (
        # A wrapped one, as in torch.func, may not know other orders.
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dim() in _FORMATS
        and tensor.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and tensor.is_floating_point()
        and tensor.device.type in ("cpu", "cuda", "xpu", "meta")
    )


def told() -> str | None:
    """What has come of it in this thread's block so far, in words, or None."""
    here = _ASKING.thread.its
    if not here.wanted:
        return None
    if not here.told:
        return "no module has been called in this thread's block yet"
    handed = [f"{name} got images in channels_last" for name, count in here.told.items() if count]
    without = [f"{name} was called without images" for name, count in here.told.items() if not count]
    return "; ".join([*handed, *without])


def _place(needed: bool) -> None:
    module_calls.put("hand", _hand if needed else None)


# In a forked child modules compute on data, if anything: nobody orders images there.
_ASKING = Asking(_Asked, _place, in_children=False)
ASKED = _ASKING.cell("a region's memory format of images")
"""What a thread's region asks of images."""
