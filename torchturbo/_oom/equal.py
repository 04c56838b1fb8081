"""Whether a step over a batch is the same as one over its parts: gradients and results, looked at on some samples."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchturbo._oom.batch import Batch
from torchturbo._oom.before import Before, refuse_written
from torchturbo._oom.freed import now_in
from torchturbo._oom.returned import Rules, rules_of
from torchturbo._turbo import _within, turbo
from torchturbo.regions._backward import ACCUMULATING
from torchturbo.regions._here import thread
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._shares import CannotSplit, Shares
from torchturbo.settings._edits import always

CLOSE = 1e-3
CLOSE_IN_HALF = 2e-2
"""How far apart gradients may be, of their length: sums in another order. What is no mean is apart by far more."""
_TRIES = 8
_SMALL = 1e-2
"""Of the length of all gradients: below, a leaf's are rounding errors, as of a bias before a normalization."""


class WithoutDropout(TorchFunctionMode):
    """Runs torch without dropout, whose masks would differ; and notes what looks at the whole batch at once.

    Attributes:
        normalizes: whether statistics of the batch were taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalizes = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one function of torch."""
        kwargs = dict(kwargs or {})
        if func in _PROBABILITY:
            args, kwargs = _without(func, args, kwargs)
        elif func is F.batch_norm and _argument(func, args, kwargs, "training"):
            self.normalizes = True
        return func(*args, **kwargs)


_PROBABILITY: dict[Any, str] = {
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout), "p"
    ),
    F.scaled_dot_product_attention: "dropout_p",
    F.multi_head_attention_forward: "dropout_p",
}
"""What draws masks, and the name of the argument that says how likely they are."""
_PLACES = {torch.dropout: 1, F.scaled_dot_product_attention: 4}
"""Where that stands, in functions without a signature."""


@functools.cache
def _names(func: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(func).parameters)


def _without(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    name = _PROBABILITY[func]
    place = _PLACES[func] if func in _PLACES else _names(func).index(name)
    if len(args) > place:
        return (*args[:place], 0.0, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: 0.0}


def _argument(func: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
    place = _names(func).index(name)
    return args[place] if len(args) > place else kwargs.get(name)


def verified(call: Callable[..., Any], before: Before, batch: Batch, every: int, around: turbo) -> Rules:
    """Compares some samples with two halves of them, steps no optimizer, and puts everything back.

    Args:
        call: the step.
        before: what it may change.
        batch: what it is called with.
        every: which samples are taken: one of so many, from the first to the last.
        around: the block that it runs in. What it compiles runs eagerly here.

    Raises:
        CannotSplit: the gradient of all is not the mean of those of the halves, or what is returned is not.
    """
    before.copy()
    # What is asked for around the call counts too where the call's own block says nothing of it.
    scaler = around.scaler or thread.here.scaler
    compiles = now_in(around, "compile")
    eagerly: Any = torch.compiler.set_stance("force_eager") if compiles else contextlib.nullcontext()
    with eagerly:
        for smaller in range(_TRIES):
            try:
                return _compared(call, before, batch, every, scaler, smaller)
            except FloatingPointError:
                if scaler is None:
                    break
    raise CannotSplit("its gradients are not finite, so that nothing tells whether its parts come to the same")


def _compared(
    call: Callable[..., Any], before: Before, batch: Batch, every: int, scaler: Scaler | None, smaller: int
) -> Rules:
    """Compares them, at a scale that is so many times 16 times smaller.

    Raises:
        FloatingPointError: gradients are not finite.
    """
    count = len(range(0, batch.samples, every))
    half = (count + 1) // 2
    at = half * every
    halves = [slice(0, at, every), slice(at, batch.samples, every)]
    shares = [half / count, (count - half) / count]
    found = []
    for parts, weights in (([slice(0, batch.samples, every)], [1.0]), (halves, shares)):
        for _ in range(4 * smaller):
            assert scaler is not None
            scaler.back_off()
        found.append(_gradients(call, before, batch, parts, weights))
    (one, (whole,)), (other, its) = found
    tolerance = CLOSE_IN_HALF if one.half else CLOSE
    _compare(before, one.sums(), other.sums(), tolerance)
    if not one.sums() and all(each is None for each in (whole, *its)):
        raise CannotSplit(
            "it neither leaves gradients by backward() nor returns anything, so that nothing tells whether its parts "
            "come to the same"
        )
    rules = rules_of(whole, its, shares, tolerance)
    if rules.takes_last:
        _, its = _gradients(call, before, batch, halves[::-1], shares[::-1])
        rules.check_last(whole, its, tolerance)
    return rules


def _gradients(
    call: Callable[..., Any],
    before: Before,
    batch: Batch,
    parts: list[slice],
    shares: list[float],
) -> tuple[Shares, list[Any]]:
    sums = Shares(shares, steps=False)
    mode = WithoutDropout()
    try:
        returned = []
        for part in parts:
            args, kwargs = batch.some(part)
            with mode:
                returned.append(_within(((ACCUMULATING, always(sums)),), functools.partial(call, *args, **kwargs)))
            sums.next()
        if mode.normalizes:
            raise CannotSplit(
                "it normalizes over the batch (BatchNorm in training), and each part would be normalized by itself: "
                "use GroupNorm or LayerNorm, or freeze the statistics by module.eval()"
            )
        refuse_written(before)
        return sums, returned
    finally:
        before.put_back()


def _compare(
    before: Before,
    whole: dict[int, tuple[Tensor, Tensor]],
    halves: dict[int, tuple[Tensor, Tensor]],
    tolerance: float,
) -> None:
    length = sum(float(grad.double().norm()) ** 2 for _, grad in whole.values()) ** 0.5
    for key in whole.keys() | halves.keys():
        leaf = (whole if key in whole else halves)[key][0]
        if (key in whole) != (key in halves) and not isinstance(leaf, nn.Parameter) and not before.knows(leaf):
            continue  # made in the call, as inputs of a gradient penalty are, and gone with it
        its, theirs = (found[key][1].double() if key in found else None for found in (whole, halves))
        one = 0.0 if its is None else float(its.norm())
        if its is None or theirs is None:
            apart = one if theirs is None else float(theirs.norm())
        else:
            apart = float((its - theirs).norm())
        if not math.isfinite(one + apart):
            raise FloatingPointError
        if apart > tolerance * max(one, _SMALL * length):
            raise CannotSplit(
                f"its loss is no mean over samples: for some samples the gradient of {before.name(leaf)} is not the "
                f"mean of those of two halves of them, but {apart / max(one, 1e-30):.2g} of its length away. That is "
                "so for sums, for losses that compare samples with each other or average over what is not padding, and "
                "for what draws random numbers"
            )
