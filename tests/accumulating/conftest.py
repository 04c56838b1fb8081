"""What these tests make torch load is loaded before them, so that it is not taken for what they leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.accumulating.loops import Case, untouched
from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums come out alike with one thread, and sooner: these models are small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _load_first(optimizers_are_loaded: None) -> None:
    untouched(Case(every=1, micro=1, middle="checkpoint"))
