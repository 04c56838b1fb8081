"""What a search leaves: nothing, as the independent witness sees it, and training that goes on with the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.laws.look import differences, look
from torchturbo import Tuned, tune, turbo


def _training() -> tuple[nn.Module, Callable[[], float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step() -> float:
        images, labels = torch.randn(4, 1, 8, 8), torch.randint(3, (4,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    return model, step


def _search(step: Callable[[], float]) -> Tuned:
    also = ({"autocast": "bf16"}, {"fused_optimizer": True}, {"num_threads": 1}, {"matmul_precision": "medium"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchturbo._tune.search.changes", lambda hardware, uses: ())
        return tune(step, budget=2, also=also, write=False)


@pytest.mark.parametrize("within", [False, True])
def test_training_goes_on_as_if_nobody_had_searched(within: bool) -> None:
    kept = {}
    for searches in (False, True):
        model, step = _training()
        with turbo("exact", num_threads=1) if within else turbo("exact"):
            losses = [step() for _ in range(3)]
            if searches:
                before = look()
                found = _search(step)
                assert differences(before, look()) == ""
                assert len(found.tuning.tried) == 4
            losses += [step() for _ in range(3)]
        kept[searches] = losses, copy.deepcopy(model.state_dict())
    assert kept[False][0] == kept[True][0]
    for name, value in kept[False][1].items():
        assert torch.equal(value, kept[True][1][name]), name
