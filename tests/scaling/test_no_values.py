"""Models without numbers, of which one wants to know shapes and memory, train where others do."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.scaling.loops import net
from torchturbo import turbo


@pytest.mark.parametrize("where", [torch.device("meta"), FakeTensorMode()], ids=["meta", "fake"])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_without_numbers(where: AbstractContextManager[object], make: type[torch.optim.Optimizer]) -> None:
    with turbo("fast", autocast="fp16") as active:
        with where:
            model = net()
            optimizer = make(model.parameters(), lr=0.1)
            model(torch.ones(4, 16)).float().mean().backward()
            optimizer.step()
        assert active.scaler is not None
        assert (active.scaler.steps, active.scaler.skipped_steps) == (1, 0)
    assert all(parameter.grad is not None for parameter in model.parameters())
