"""Steps of optimizers by torch's fused kernels, without a trace of it in the optimizers.

A step of Adam, AdamW, SGD or Adagrad collects its tensors and hands them to a function of its module, which computes
(`torch.optim.adam.adam` and its like). While some thread has a region open, a function of ours stands there; in such a
thread it calls torch's own with ``fused=True``. So an optimizer is at any moment what it is without a region: its
``param_groups``, its state, and what is saved or copied of it. Nothing has to be put back, and whatever is loaded or
added in a block is fused from its next step on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchturbo._dynamo import untraced
from torchturbo.regions._asking import Asked, Asking
from torchturbo.settings._base import TORCH

Wanted = Literal["auto", True, False]
_Compute = Callable[..., None]


class _Asked(Asked):
    """What a thread's region asks for, and what has come of it since it was opened.

    Attributes:
        wanted: the value of the option.
        told: the classes that have stepped, each with the reason why that step was left as it is, or None.
    """

    wanted: Wanted = False

    def begin(self) -> None:
        """Forgets what has come of it."""
        self.told: dict[tuple[str, str | None], None] = {}


class _Kind(NamedTuple):
    """A function that computes the steps of a class of optimizers.

    Attributes:
        name: its name, in the module of the class.
        of: the class that calls it.
        lists: how many lists of tensors it takes first: the parameters, their gradients, and their state.
        counts: whether the last list counts the steps that each parameter has taken.
    """

    name: str
    of: type[torch.optim.Optimizer]
    lists: int
    counts: bool

    @property
    def module(self) -> dict[str, Any]:
        """The module, which `torch.optim` has no name for."""
        return vars(sys.modules[self.of.__module__])


_KINDS = (
    _Kind("adam", torch.optim.Adam, 6, True),
    _Kind("sgd", torch.optim.SGD, 3, False),
    _Kind("adagrad", torch.optim.Adagrad, 4, True),
)


@untraced
def _step(kind: _Kind, compute: _Compute, lists: tuple[Any, ...], how: dict[str, Any]) -> None:
    """One step of one group of parameters."""
    here = _ASKING.thread.its
    if here.wanted is False or len(lists) != kind.lists or not lists[0] or how.get("fused"):
        return compute(*lists, **how)
    reason = _reason(kind, here.wanted, lists, how)
    here.told["AdamW" if how.get("decoupled_weight_decay") else kind.of.__name__, reason] = None
    if reason is not None:
        return compute(*lists, **how)
    behind: list[list[Tensor]] = []
    if kind.counts:
        lists, behind = _counted_on_device(lists)
    compute(*lists, **{**how, "fused": True, "foreach": False})
    for counts in behind:
        # As torch does it: a number would be made a tensor once for each of them.
        torch._foreach_add_(counts, torch.tensor(1.0, device="cpu"), alpha=1.0)
    return None


def _counted_on_device(lists: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[list[Tensor]]]:
    """The lists with the counts where fused kernels read them, and the counts that stand elsewhere.

    torch keeps those of an optimizer that is not fused on the CPU. They are copied for every step, all at once and
    without waiting for the device: counts that stayed there would have to be compared with these at every step.
    """
    *others, counts = lists
    elsewhere: dict[tuple[torch.device, torch.device, torch.dtype], list[int]] = {}
    for place, (param, count) in enumerate(zip(lists[0], counts, strict=True)):
        if count.dtype is not torch.float32 or count.device != param.device:
            elsewhere.setdefault((param.device, count.device, count.dtype), []).append(place)
    if not elsewhere:
        return lists, []
    copied, behind = list(counts), []
    for (device, _, _), places in elsewhere.items():
        behind.append([counts[place] for place in places])
        copies = torch.stack(behind[-1]).to(device, torch.float32, non_blocking=True).unbind()
        for place, copy in zip(places, copies, strict=True):
            copied[place] = copy
    return (*others, copied), behind


# ------------------------------------------------------------------------------------------------ what is left as it is


def _reason(kind: _Kind, wanted: Wanted, lists: Sequence[list[Any]], how: dict[str, Any]) -> str | None:
    """Why a step is left as it is, or None."""
    for option in ("foreach", "capturable", "differentiable"):
        if how.get(option):
            return f"it was made with {option}=True"
    if wanted == "auto":
        for option in ("foreach", "fused"):
            if how.get(option) is not None:
                return f"it was made with {option}=False"
        if kind.name == "sgd" and how["momentum"] == 0:
            return "without momentum it is no faster when fused"
    if how.get("grad_scale") is not None or how.get("found_inf") is not None:
        return "it has been given found_inf, as a GradScaler does with fused optimizers"
    return _reason_in(kind, [tensors for tensors in lists[: kind.lists - kind.counts] if tensors])


def _reason_in(kind: _Kind, lists: Sequence[list[Any]]) -> str | None:
    """Why tensors cannot be given to a fused kernel, or None."""
    params = lists[0]
    tensors = [tensor for each in lists for tensor in each if tensor is not None]
    kinds = params[:1]
    if not _alike(tensors):
        kinds = params
        for param, *others in zip(*lists, strict=True):
            if (reason := _reason_of(param, [other for other in others if other is not None])) is not None:
                return reason
    if 2 * len(params) < len(tensors) < len(lists) * len(params):
        return "some of its parameters, and not all, have no momentum yet"
    for device, dtype in {(param.device, param.dtype) for param in kinds}:
        if (reason := _no_kernel(kind.name, device.type, dtype)) is not None:
            return reason
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "a CUDA graph is being captured, which would go on without the block"
    return None


_PLAIN = {torch.nn.Parameter, Tensor}


def _alike(tensors: list[Tensor]) -> bool:
    """Whether tensors are as nearly all are, and there is nothing more to look at."""
    return (
        _PLAIN.issuperset(map(type, tensors))
        and {torch.strided}.issuperset(map(attrgetter("layout"), tensors))
        and {tensors[0].dtype}.issuperset(map(attrgetter("dtype"), tensors))
        and {tensors[0].get_device()}.issuperset(map(Tensor.get_device, tensors))
        and all(map(Tensor.is_contiguous, tensors))
    )


def _reason_of(param: Tensor, others: list[Tensor]) -> str | None:
    """Why a parameter, with its gradient and state, cannot be given to a fused kernel, or None.

    The kernels go through memory from its beginning to its end, and do not look whether its order is the same in all.
    """
    for each in (param, *others):
        if type(each) not in _PLAIN:
            return f"it has tensors of type {type(each).__name__}"
        if each.layout is not torch.strided:
            return "its gradients are sparse"
        if each.dtype is not param.dtype or each.device != param.device:
            return "its gradients or state are of another dtype or device than its parameters"
        if not _same_order(param, each):
            return "its parameters, gradients and state do not lie in memory in one order, without gaps"
    return None


def _same_order(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors fill memory without gaps, in the same order."""
    if one.is_contiguous() and other.is_contiguous():
        return True
    if one.stride() != other.stride():
        return False
    filled = 1
    for stride, size in sorted(zip(one.stride(), one.shape, strict=True)):
        if size != 1 and stride != filled:
            return False
        filled *= size
    return True


@functools.cache
def _no_kernel(name: str, device: str, dtype: torch.dtype) -> str | None:
    """Why torch has no fused kernel for parameters, or None."""
    has: Callable[[str, str], bool] = torch._C._dispatch_has_kernel_for_dispatch_key
    if device not in ("cpu", "cuda") or not has(f"aten::_fused_{name}_", device.upper()):
        return f"this torch has no fused kernel for it that is known to work on {device}"
    if not dtype.is_floating_point:
        return f"fused kernels cannot compute {dtype}"
    if name == "sgd" and device == "cpu" and dtype in (torch.bfloat16, torch.float16) and TORCH < (2, 15):
        return f"before torch 2.15 the fused kernel computes {dtype} wrong on the CPU"
    return None


def told() -> str | None:
    """What has come of it in this thread's block so far, in words, or None."""
    here = _ASKING.thread.its
    if here.wanted is False:
        return None
    steps = (f"{name} is fused" if why is None else f"{name} is left as it is: {why}" for name, why in here.told)
    return "; ".join(steps) or None


# --------------------------------------------------------------------------------------------------- in place meanwhile


def _standing_in(kind: _Kind, compute: _Compute) -> _Compute:
    @functools.wraps(compute)
    def step(*args: Any, **kwargs: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            return compute(*args, **kwargs)
        return _step(kind, compute, args, kwargs)

    return step


class _Place:
    """Where a function of ours stands while some thread has a region open.

    Attributes:
        kind: what it computes.
        theirs: what torch called before.
        ours: what stands in for it.
    """

    __slots__ = ("kind", "ours", "theirs")

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        self.theirs: _Compute | None = None
        self.ours: _Compute | None = None

    def fill(self) -> None:
        """Puts it there."""
        module, name = self.kind.module, self.kind.name
        if module[name] is not self.theirs:
            self.theirs = module[name]
            self.ours = _standing_in(self.kind, self.theirs)
        module[name] = self.ours

    def clear(self) -> None:
        """Takes it out. Somebody who patched on top of us keeps us in the chain, where we do nothing unasked."""
        module, name = self.kind.module, self.kind.name
        if module[name] is self.ours:
            module[name] = self.theirs


_places = tuple(map(_Place, _KINDS))


def _place(needed: bool) -> None:
    for place in _places:
        (place.fill if needed else place.clear)()


_ASKING = Asking(_Asked, _place)
ASKED = _ASKING.cell("a region's fused optimizers")
"""What a thread's region asks of optimizers."""
