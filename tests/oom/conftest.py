"""What these tests make torch load is loaded before them, so that it is not taken for what they leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
