"""Fixtures for tests that open regions: on a pretended CPU with bf16, which any real one can compute."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch

from torchturbo.testing import pretend_hardware


@pytest.fixture(scope="session", autouse=True)
def optimizers_are_loaded() -> None:
    """The first optimizer loads much of torch, and a filter for warnings with it, which is no test's doing."""
    with warnings.catch_warnings():
        torch.optim.SGD([torch.ones(1)])


@pytest.fixture(autouse=True)
def cpu_with_bf16() -> Iterator[None]:
    with pretend_hardware("cpu-bf16"):
        yield
