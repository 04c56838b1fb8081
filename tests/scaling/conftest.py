"""Blocks with fp16 open wherever these tests run, and weights start as the last time."""

from __future__ import annotations

import pytest
import torch

from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
