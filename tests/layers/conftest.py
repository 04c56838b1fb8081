"""What profiled steps use is loaded before, and streams put back after what tests draw themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _as_before(compiler: None) -> Iterator[None]:
    """`zero_grad` imports the compiler when it is first called."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)
