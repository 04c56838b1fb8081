"""Out of memory on a GPU, for real: a batch that does not fit is taken in parts, and what cannot be is put back."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.pretended import optimizers_are_loaded
from torchturbo import accelerate
from torchturbo.testing import injected_oom

pytestmark = pytest.mark.gpu
__all__ = ["optimizers_are_loaded"]

WIDTH = 4096
ROOM = 1.5 * 2**30
"""Bytes that the process may have: a batch of 8192 keeps more than that for backward, one of 1024 does not."""


@pytest.fixture
def little_memory() -> Iterator[None]:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (ROOM + torch.cuda.memory_reserved()) / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        each for _ in range(6) for each in (nn.Linear(WIDTH, WIDTH // 8), nn.GELU(), nn.Linear(WIDTH // 8, WIDTH))
    )
    return nn.Sequential(*layers).cuda()


def plain(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_a_batch_that_does_not_fit_is_taken_in_parts(little_memory: None) -> None:
    x = torch.randn(8192, WIDTH, device="cuda")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(torch.OutOfMemoryError):
        plain(model, x, optimizer)
    optimizer.zero_grad()
    torch.cuda.empty_cache()
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())

    loss = accelerate(profile="exact", on_oom="split")(plain)(model, x, optimizer)

    by_hand = net()
    its = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    total = 0.0
    for part in x.split(512):
        share = (by_hand(part).square().mean()) * (len(part) / len(x))
        share.backward()
        total += share.item()
    its.step()
    assert loss.item() == pytest.approx(total, rel=1e-4)
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_error_says_what_used_the_memory(little_memory: None) -> None:
    x = torch.randn(8192, WIDTH, device="cuda")
    model = net()
    with pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="raise")(plain)(model, x, torch.optim.AdamW(model.parameters()))
    assert "out of memory in forward on cuda:0 of " in found.value.__notes__[0]
    assert "activations and the rest " in found.value.__notes__[0]
    assert "on_oom='split': " in found.value.__notes__[1]


@pytest.mark.parametrize("at", ["forward", "backward", "optimizer"])
@pytest.mark.parametrize("autocast", [None, "fp16"])
def test_what_cannot_be_taken_has_changed_nothing(at: str, autocast: str | None) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    step = accelerate(profile="exact", autocast=autocast, on_oom="split")(plain)
    x = torch.randn(16, WIDTH, device="cuda")
    step(model, x, optimizer)
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict(), torch.cuda.get_rng_state()])
    with injected_oom(0, at=at), pytest.raises(torch.OutOfMemoryError):
        step(model, x, optimizer)
    torch.testing.assert_close(
        [model.state_dict(), optimizer.state_dict(), torch.cuda.get_rng_state()], before, rtol=0, atol=0
    )
    with injected_oom(8, at=at) as failed:
        step(model, x, optimizer)
    assert failed[0] == 16
