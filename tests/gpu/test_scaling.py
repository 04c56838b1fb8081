"""fp16 on a GPU: untouched loops against hand-written ones, bit for bit; parts of backward run in its own threads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.pretended import optimizers_are_loaded
from torchturbo import turbo

pytestmark = pytest.mark.gpu
__all__ = ["optimizers_are_loaded"]

STEPS, INITIAL = 12, 2.0**40
"""So large a scale that the first steps overflow."""


class Net(nn.Module):
    """A small net, part of which may be computed again in backward."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 1)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        if self.reentrant is None:
            hidden = self.middle(hidden)
        else:
            hidden = checkpoint(self.middle, hidden, use_reentrant=self.reentrant)
        result: Tensor = self.last(hidden.relu())
        return result


Step = Callable[[nn.Module, torch.optim.Optimizer], None]


def made(reentrant: bool | None, **options: bool) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Net(reentrant).cuda()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, **options)


def batch(step: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(step)
    return torch.randn(8, 16, generator=made).cuda(), torch.randn(8, 1, generator=made).cuda()


def by_hand(reentrant: bool | None, every: int, **options: bool) -> tuple[Net, float]:
    model, optimizer = made(reentrant, **options)
    scaler = torch.amp.GradScaler("cuda", init_scale=INITIAL, growth_interval=3)
    for step in range(STEPS):
        x, y = batch(step)
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            loss = nn.functional.mse_loss(model(x), y)
        scaler.scale(loss / every).backward()
        if (step + 1) % every == 0:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return model, scaler.get_scale()


def untouched(reentrant: bool | None, every: int, **options: bool) -> tuple[Net, float]:
    model, optimizer = made(reentrant, **options)
    asked = {"autocast": "fp16", "init_scale": INITIAL, "growth_interval": 3, "accumulate": every}
    # The precision of the reference: autocast alone.
    with turbo("debug", anomaly=False, **asked) as active:  # type: ignore[arg-type]
        for step in range(STEPS):
            x, y = batch(step)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert active.scaler is not None
    return model, active.scaler.get_scale()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "fused", "foreach"])
@pytest.mark.parametrize("reentrant", [None, False, True], ids=["whole", "checkpoint", "reentrant"])
def test_an_untouched_loop_is_the_one_written_by_hand(reentrant: bool | None, kind: str, every: int) -> None:
    options = {} if kind == "plain" else {kind: True}
    with turbo("debug", anomaly=False, autocast=None):
        (expected, scale), (found, ours) = by_hand(reentrant, every, **options), untouched(reentrant, every, **options)
    assert ours == scale < INITIAL
    for a, b in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_steps_in_backward_skips_what_overflows() -> None:
    """The hook runs in the device's thread, which finds the scaler by the backward that it is a part of."""
    model, _ = made(None)
    optimizers = {p: torch.optim.SGD([p], lr=1e-2) for p in model.parameters()}

    def step(p: Tensor) -> None:
        optimizers[p].step()  # type: ignore[index]
        optimizers[p].zero_grad()  # type: ignore[index]

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(functools.partial(step))
    with turbo("fast", autocast="fp16", init_scale=INITIAL) as active:
        for number in range(STEPS * 3):
            x, y = batch(number)
            nn.functional.mse_loss(model(x), y).backward()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert active.scaler is not None
    assert active.scaler.skipped_steps
    assert active.scaler.steps
