"""Regions open wherever these tests run."""

from __future__ import annotations

import pytest

from tests.pretended import cpu_with_bf16, optimizers_are_loaded
from tests.regions.watching import Watched

__all__ = ["cpu_with_bf16", "optimizers_are_loaded", "watched"]


@pytest.fixture
def watched() -> Watched:
    return Watched()
