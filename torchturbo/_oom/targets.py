"""Losses that average over targets, and leave some of them out: in each part there must be as many for a sample.

Whether a loss is a mean over samples is verified with one batch. In that one nothing may have been padding.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchturbo._dynamo import untraced
from torchturbo._oom.equal import CLOSE
from torchturbo.regions._shares import CannotSplit


class AsManyTargets(TorchFunctionMode):
    """Stops a step in parts whose losses average over more targets for a sample in one part than in another."""

    def __init__(self) -> None:
        super().__init__()
        self._first: list[tuple[str, float]] = []
        self._now: list[tuple[str, float]] = []
        self._samples = 1

    def next(self, samples: int) -> None:
        """Begins a part.

        Args:
            samples: of the part.
        """
        self._first = self._first or self._now
        self._now, self._samples = [], samples

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one function of torch."""
        kwargs = dict(kwargs or {})
        if func in (F.cross_entropy, F.nll_loss):
            self._heed(func, args, kwargs)
        return func(*args, **kwargs)

    @untraced  # what the code compiles itself is left for it
    def _heed(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        its = _signature(func).bind(*args, **kwargs)
        its.apply_defaults()
        target, weight, ignored = (its.arguments[name] for name in ("target", "weight", "ignore_index"))
        averages = its.arguments["reduction"] == "mean"
        if not averages or not isinstance(target, Tensor) or target.is_floating_point():
            return
        kept = target[target != ignored]
        count = float(kept.numel() if weight is None else weight[kept].sum())
        place, name = len(self._now), func.__name__
        self._now.append((name, count / self._samples))
        if place < len(self._first) and not math.isclose(self._first[place][1], count / self._samples, rel_tol=CLOSE):
            weighed = "" if weight is None else ", by their weights,"
            raise CannotSplit(
                f"{name} averages over the targets that are not ignored, and there are{weighed} "
                f"{self._first[place][1]:.4g} of them for a sample in one part of this batch and "
                f"{count / self._samples:.4g} in another, so that it is no mean over samples: average over those of "
                "each sample first (reduction='none')"
            )


@functools.cache
def _signature(func: Any) -> inspect.Signature:
    return inspect.signature(func)
