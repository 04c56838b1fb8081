"""Gradients that are to be set to zero are let go of instead, and are zeros again where an optimizer would see them.

With `zero_grad(set_to_none=False)` gradients of the last step take their memory through the whole forward pass. Without
them an optimizer would do something else: it leaves parameters out that have none, and does not decay them or move them
on by their momentum. So what has been let go of, and what no backward has reached since, is given zeros before a step,
and at the end of the region.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._steps import hear_no_steps, hear_steps

_KEY = "torchturbo.regions.zeroing"


class _Asked(Asked):
    """What a thread's region asks for.

    Attributes:
        stepping: whether an optimizer's step runs, in whose closure gradients are set to zero as ever.
        gone: parameters whose gradients were let go of, by identity.
        count: how many gradients were, since the region was opened.
    """

    wanted: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[int, weakref.ref[Tensor]] = {}

    def begin(self) -> None:
        """Forgets what has come of it."""
        self.stepping = False
        self.count = 0

    def end(self) -> None:
        """Gives zeros to what has been let go of."""
        with torch.no_grad():
            _back(self, list(self.gone))


def _standing_in(self: Any, set_to_none: bool = True) -> Any:
    call: Any = "ours"
    return call(self, set_to_none)


@untraced
def _of_optimizer(optimizer: Any, set_to_none: bool) -> Any:
    parameters = (each for group in optimizer.param_groups for each in group["params"])
    return _OPTIMIZERS.theirs(optimizer, set_to_none or _lets_go(parameters))


@untraced
def _of_module(module: Any, set_to_none: bool) -> Any:
    return _MODULES.theirs(module, set_to_none or _lets_go(module.parameters()))


def _exchanged(function: Any, call: Any) -> Exchange:
    inner: Any = inspect.unwrap(function)
    return Exchange(inner, code_like(inner, _standing_in, call))


_OPTIMIZERS = _exchanged(torch.optim.Optimizer.zero_grad, _of_optimizer)
_MODULES = _exchanged(torch.nn.Module.zero_grad, _of_module)


def _lets_go(parameters: Iterable[Tensor]) -> bool:
    """Whether gradients are let go of here, instead of being set to zero; if so they are remembered."""
    here = _ASKING.thread.its
    if not here.wanted or here.stepping:
        return False
    found = [each for each in parameters if each.grad is not None]
    # Of a sparse gradient the zeros are sparse too, and some optimizers take no others.
    if any(each.grad is not None and each.grad.layout is not torch.strided for each in found):
        return False
    here.gone.update((id(each), weakref.ref(each)) for each in found)
    here.count += len(found)
    return True


@untraced
def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    here = _ASKING.thread.its
    if here.wanted:
        here.stepping = True
        _back(here, (id(each) for group in optimizer.param_groups for each in group["params"]))


@untraced
def _after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    _ASKING.thread.its.stepping = False


def _back(here: _Asked, identities: Iterable[int]) -> None:
    """Gives zeros to those parameters that have been let go of, and have nothing else since."""
    for parameter in _taken(here, identities):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _taken(here: _Asked, identities: Iterable[int]) -> Iterator[Tensor]:
    for identity in identities:
        reference = here.gone.pop(identity, None)
        parameter = None if reference is None else reference()
        if parameter is not None:
            yield parameter


def told() -> str | None:
    """What has come of it in this thread's block so far, in words, or None."""
    here = _ASKING.thread.its
    return f"{here.count} gradients were let go of that were to be set to zero" if here.wanted else None


def _place(needed: bool) -> None:
    for each in (_OPTIMIZERS, _MODULES):
        each.settle(needed)
    if needed:
        hear_steps(_KEY, _before_step, _after_step)
    else:
        hear_no_steps(_KEY)


# In a forked child nobody trains what its parent does.
_ASKING = Asking(_Asked, _place, in_children=False)
ASKED = _ASKING.cell("a region's gradients let go of")
"""What a thread's region does about gradients that are to be zeros."""
