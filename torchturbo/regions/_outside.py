"""What happens outside of a block that scales, and would have to happen in it: it is said, and not passed over."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.errors import ScalingWarning
from torchturbo.regions._here import thread
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._window import running


@untraced
def look(result: Any) -> None:
    """Has backward through the outputs of the first module in a block say so if it is not scaled.

    Args:
        result: the outputs.
    """
    scaler = thread.here.scaler
    if scaler is None or scaler.told_outside:
        return
    node = next((tensor.grad_fn for tensor in _tensors(result) if tensor.grad_fn is not None), None)
    if node is not None:
        node.register_prehook(_teller(scaler))


def _tensors(result: Any) -> Iterator[Tensor]:
    if type(result) is Tensor:
        yield result
    elif isinstance(result, tuple | list):
        for each in result:
            yield from _tensors(each)
    elif isinstance(result, Mapping):
        for each in result.values():
            yield from _tensors(each)


def _teller(scaler: Scaler) -> Any:
    @untraced
    def tell(grads: Any) -> None:
        if thread.here.scaler is None and running() is None and not scaler.told_outside:
            scaler.told_outside = True
            warnings.warn(
                "backward runs through an fp16 forward outside of the block that computed it: gradients are not "
                "scaled, and small ones become zero, unless a GradScaler of your own does it. Put backward() and the "
                "step into the block, or into the function that is accelerated",
                ScalingWarning,
                stacklevel=2,
            )

    return tell
