"""Inductor drawing random numbers as eager code draws them, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchturbo.settings._base import TORCH

_OPTION = "fallback_random"


@contextmanager
def drawing_as_eager() -> Iterator[None]:
    """A block in which inductor compiles code that draws what eager code draws; what it has compiled stays as it is.

    The option is written beneath its setter, which does not tell "unset" from what it is by default.
    """
    import torch._inductor.config

    config: Any = torch._inductor.config
    entry: Any = config._config[_OPTION]
    before = entry.user_override.get() if TORCH >= (2, 12) else entry.user_override
    _write(config, entry, True)
    try:
        yield
    finally:
        _write(config, entry, before)


def _write(config: Any, entry: Any, value: Any) -> None:
    if TORCH >= (2, 12):
        entry.user_override.set(value)
        config._hash_dirty_var.set(True)
        config._mark_get_dict_dirty(_OPTION)
    else:
        entry.user_override = value
        config._is_dirty = True
