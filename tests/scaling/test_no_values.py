"""Models without numbers, of which one wants to know shapes and memory, train where others do."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.scaling.loops import net
from torchturbo import turbo


@pytest.mark.parametrize("kind", ["meta", "fake"])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_without_numbers(kind: str, make: type[torch.optim.Optimizer]) -> None:
    with turbo("fast", autocast="fp16") as active:
        with FakeTensorMode() if kind == "fake" else nullcontext():
            model = net()
            if kind == "meta":
                model.to("meta")
            optimizer = make(model.parameters(), lr=0.1)
            model(torch.ones(4, 16, device=model[0].weight.device)).float().mean().backward()
            optimizer.step()
        assert active.scaler is not None
        assert (active.scaler.steps, active.scaler.skipped_steps) == (1, 0)
    assert all(parameter.grad is not None for parameter in model.parameters())
