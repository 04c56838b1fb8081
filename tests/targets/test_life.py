"""An accelerated module lives no longer than an undecorated one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.regions.compiled import load_compiler
from torchturbo import accelerate


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    load_compiler()


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    torch.compiler.reset()


@pytest.mark.parametrize("options", [{}, {"compile": {"backend": "eager"}}], ids=["plain", "compiled"])
def test_a_module_that_is_dropped_is_gone_at_once(options: Any) -> None:
    model = accelerate(nn.Linear(4, 4), **options)
    model(torch.ones(1, 4)).sum().backward()
    kept = weakref.ref(model)
    del model
    assert kept() is None


def test_its_forward_alone_says_that_it_is_gone() -> None:
    forward = accelerate(nn.Linear(4, 4)).forward
    with pytest.raises(ReferenceError, match="keep the module"):
        forward(torch.ones(1, 4))
