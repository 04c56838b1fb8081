"""Inductor drawing random numbers as eager code draws them, and keeping fewer activations, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchturbo.settings._base import TORCH

_RANDOM, _BUDGET = "fallback_random", "activation_memory_budget"


@contextmanager
def drawing_as_eager() -> Iterator[None]:
    """A block in which inductor compiles code that draws what eager code draws; what it has compiled stays as it is.

    The option is written beneath its setter, which does not tell "unset" from what it is by default.
    """
    import torch._inductor.config

    with _written(torch._inductor.config, _RANDOM, True):
        yield


@contextmanager
def spending(budget: float | None) -> Iterator[None]:
    """A block in which what is compiled may keep a part of its activations for backward, and computes the others again.

    Args:
        budget: the part, from 0 to 1; None for what is in force.
    """
    if budget is None:
        yield
        return
    import torch._functorch.config

    with _written(torch._functorch.config, _BUDGET, budget):
        yield


@contextmanager
def _written(config: Any, option: str, value: Any) -> Iterator[None]:
    entry: Any = config._config[option]
    before = entry.user_override.get() if TORCH >= (2, 12) else entry.user_override
    _write(config, entry, option, value)
    try:
        yield
    finally:
        _write(config, entry, option, before)


def _write(config: Any, entry: Any, option: str, value: Any) -> None:
    if TORCH >= (2, 12):
        entry.user_override.set(value)
        config._hash_dirty_var.set(True)
        config._mark_get_dict_dirty(option)
    else:
        entry.user_override = value
        config._is_dirty = True
