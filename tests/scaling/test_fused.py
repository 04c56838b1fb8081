"""Fused optimizers, whose kernels take the scale and skip by themselves when a GradScaler asks them to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from tests.scaling import loops
from tests.scaling.loops import QUIET, WAYS, By, Loop, Way, by_hand, differences, untouched
from tests.scaling.ordinary import ordinary
from torchturbo import turbo

Make = Callable[[nn.Module], torch.optim.Optimizer]

FUSED: dict[str, Make] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1 / QUIET, fused=True),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1 / QUIET, momentum=0.9, fused=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-12, fused=True),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-12, amsgrad=True, fused=True),
    "adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=0.05, eps=1e-14, fused=True),
}


def plain_protocol(make: Make) -> Make:
    """By hand torch's fused kernels run and skip by themselves, which leaves a state even where nothing was done.

    Of a first step with momentum that is garbage (a bug of torch). So here the scaler is to call `step` or not, as with
    all other optimizers.
    """

    def made(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = make(model)
        optimizer._step_supports_amp_scaling = False
        return optimizer

    return made


def clip(model: nn.Module, by: By, optimizer: torch.optim.Optimizer, step: int) -> object:
    by.unscale(optimizer)
    return clip_grad_norm_(model.parameters(), 0.1 * QUIET)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_runs_or_does_not(name: str, clipped: bool, way: Way) -> None:
    def recipe(make: Make) -> Callable[[By], Loop]:
        return lambda by: ordinary(by, clip, make=make) if clipped else ordinary(by, make=make)

    assert not differences(untouched(recipe(FUSED[name]), way), by_hand(recipe(plain_protocol(FUSED[name]))))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_it_is_what_torchs_own_protocol_comes_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is a state; with its gradients still scaled, so these are left out."""
    monkeypatch.setattr(loops, "SURGES", (4, 5, 9))

    def recipe(by: By) -> Loop:
        made = ordinary(by, make=FUSED[name])
        made.gradients = False
        return made

    expected = by_hand(recipe)
    assert expected[".skipped"] == 3
    assert not differences(untouched(recipe), expected)


def test_what_a_scaler_leaves_on_an_optimizer_does_no_harm() -> None:
    """By hand first, and then untouched: a GradScaler's marks on a fused optimizer are taken away by torch itself."""
    torch.manual_seed(0)
    model = loops.net()
    optimizer = FUSED["adam"](model)
    by = loops.ByHand(**loops.OPTIONS)
    with by.forward():
        loss = loops.regression(model, 1)
    by.scale(loss).backward()
    by.step(optimizer)
    by.update()
    with turbo("fast", autocast="fp16"):
        optimizer.zero_grad()
        loops.regression(model, 2).backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not hasattr(optimizer, "found_inf")
    assert not hasattr(optimizer, "grad_scale")
