"""Losses that the user's own `torch.amp.GradScaler` has scaled, which are left to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.errors import ScalingError
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._here import thread
from torchturbo.regions._leaves import Graph
from torchturbo.regions._scaler import Scaler


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_dynamo_compiling():
        # Dynamo takes no function for a constant; it breaks its graph at this one.
        from torchturbo.regions import _own_scalers

        return _own_scalers._scale(self, args, kwargs)
    call: Any = "ours"
    return call(self, args, kwargs)


@untraced
def _scale(own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = scale_calls.theirs(own, *args, **kwargs)
    here = thread.here
    if (here.scaler is not None or here.accumulating is not None) and own.is_enabled():
        for each in (result,) if isinstance(result, Tensor) else result if isinstance(result, list | tuple) else ():
            if isinstance(each, Tensor) and each.grad_fn is not None:
                # A node keeps its graph, so only the last few are kept, and none once backward has come to them.
                here.scaled_by_user.append(each.grad_fn)
    return result


_FUNCTION: Any = vars(torch.amp.GradScaler)["scale"]
scale_calls = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _scale))
"""`torch.amp.GradScaler.scale`, watched while some thread scales or accumulates."""


@untraced
def has_scaled(outputs: Iterable[Any]) -> bool:
    """Whether the user's own scaler has scaled what gradients are asked of.

    Args:
        outputs: what they are asked of.
    """
    here = thread.here
    if not here.scaled_by_user:
        return bool(here.user_scales)
    return not Graph(outputs).nodes.isdisjoint(here.scaled_by_user)


@untraced
def scaled(scaler: Scaler | None, nodes: Iterable[Any]) -> bool:
    """Whether the user's own scaler has scaled what backward begins with.

    Args:
        scaler: the region's, or None.
        nodes: the graph.

    Raises:
        ScalingError: it has scaled one loss of the region, and another one not.
    """
    here = thread.here
    kept: deque[Any] = here.scaled_by_user
    theirs = bool(kept) and not set(kept).isdisjoint(nodes)
    if theirs:
        here.scaled_by_user = deque((node for node in kept if node not in nodes), maxlen=kept.maxlen)
    if scaler is None:
        return theirs
    if here.user_scales is None:
        here.user_scales = theirs
    elif here.user_scales is not theirs:
        raise ScalingError(
            "one loss in this block is scaled by a GradScaler of its own, and another is not: scale both, or take the "
            "GradScaler away, and the block scales every loss"
        )
    return theirs
