"""`accelerate(model, float8=True)` on a GPU that has float8: what torchao computes, and the plain layers afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchturbo import accelerate, restore
from torchturbo._float8 import why_not
from torchturbo.hardware import detect

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", [False, True])
def test_fifty_steps_are_those_of_torchaos_own_conversion(compiled: bool) -> None:
    float8 = pytest.importorskip("torchao.float8")
    if (reason := why_not(detect())) is not None:
        pytest.skip(reason)

    def model() -> nn.Sequential:
        torch.manual_seed(3)
        made = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64), nn.Linear(64, 10))
        return made.cuda().bfloat16()

    def trained(its: nn.Module, call: nn.Module) -> list[torch.Tensor]:
        optimizer = torch.optim.AdamW(its.parameters(), lr=1e-3)
        for step in range(50):
            x = torch.randn(24, 64, generator=torch.Generator().manual_seed(step)).cuda().bfloat16()
            optimizer.zero_grad()
            call(x).float().square().mean().backward()
            optimizer.step()
        return [each.detach().clone() for each in its.parameters()]

    config = float8.Float8LinearConfig(pad_inner_dim=True)
    theirs = float8.convert_to_float8_training(
        model(), config=config, module_filter_fn=lambda layer, name: layer.out_features % 16 == 0
    )
    by_hand = trained(theirs, torch.compile(theirs) if compiled else theirs)  # type: ignore[arg-type]
    plain, ours = model(), accelerate(model(), profile="exact", float8=True, compile=compiled)
    found = trained(ours, ours)
    assert all(map(torch.equal, by_hand, found))
    restore(ours)
    assert [type(each) for each in ours] == [type(each) for each in plain]
