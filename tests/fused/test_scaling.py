"""Fused optimizers and scaled gradients: the bits of the loop with `GradScaler` and ``fused=True`` by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fused.loops import KINDS, NOTHING, bits, make
from torchturbo import turbo

SCALE: dict[str, Any] = {"init_scale": 2.0**16, "growth_interval": 2}
LOUD = 2.0**13
"""What a loss is multiplied by so that its gradients overflow in float16."""


def perceptron() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1))


def batches(overflows: list[bool]) -> Iterator[tuple[Tensor, Tensor, float]]:
    numbers = torch.Generator().manual_seed(1)
    for loud in overflows:
        x = torch.randn(8, 6, generator=numbers)
        yield x, x.sum(1, keepdim=True), LOUD if loud else 1.0


def untouched(kind: str, overflows: list[bool]) -> tuple[Tensor, Any]:
    model = perceptron()
    optimizer = make(kind, model.parameters())
    with turbo("fast", autocast="fp16", fused_optimizer=True, **SCALE) as active:
        for x, y, times in batches(overflows):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y) * times
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return bits(model.parameters()), active.scaler


def by_hand(kind: str, overflows: list[bool]) -> tuple[Tensor, float]:
    model = perceptron()
    optimizer: Any = make(kind, model.parameters(), fused=True)
    # torch's bug: fused SGD takes what memory held for its momentum where its first step is skipped by found_inf.
    optimizer._step_supports_amp_scaling = "momentum" not in kind
    scaler = torch.amp.GradScaler("cpu", **SCALE)
    for x, y, times in batches(overflows):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.mse_loss(model(x), y) * times
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    return bits(model.parameters()), scaler.get_scale()


SCALED = ["Adam", "AdamW, amsgrad", "SGD", "SGD, momentum", "Adagrad"]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("overflows", [[False] * 4, [True, True, False, False], [False, True, False, False]])
def test_an_untouched_loop_in_fp16(kind: str, overflows: list[bool]) -> None:
    found, scaler = untouched(kind, overflows)
    expected, scale = by_hand(kind, overflows)
    assert torch.equal(found, expected)
    assert scaler.get_scale() == scale
    if any(overflows):
        assert scaler.skipped_steps


@settings(max_examples=40)
@given(st.sampled_from(SCALED), st.lists(st.booleans(), min_size=1, max_size=7))
def test_overflows_at_random_steps(kind: str, overflows: list[bool]) -> None:
    found, scaler = untouched(kind, overflows)
    expected, scale = by_hand(kind, overflows)
    assert torch.equal(found, expected)
    assert scaler.get_scale() == scale


@pytest.mark.parametrize("kind", SCALED)
def test_a_step_that_is_skipped_counts_none(kind: str) -> None:
    model = perceptron()
    optimizer = make(kind, model.parameters())
    with turbo(NOTHING, autocast="fp16", fused_optimizer=True):
        loss = model(torch.full((8, 6), math.inf)).sum()
        loss.backward()
        optimizer.step()
    assert all(state.get("step", 0) == 0 for state in optimizer.state.values())
    assert not any("momentum_buffer" in state for state in optimizer.state.values())
    assert torch.equal(bits(model.parameters()), bits(perceptron().parameters()))


@pytest.mark.matrix
@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("unscales", [False, True])
def test_a_gradient_scaler_of_the_users_own(kind: str, unscales: bool) -> None:
    found = []
    for ours in (True, False):
        model = perceptron()
        optimizer: Any = make(kind, model.parameters(), fused=None if ours else True)
        if not ours and "momentum" in kind:
            optimizer._step_supports_amp_scaling = False
        scaler = torch.amp.GradScaler("cpu", **SCALE)
        with turbo(NOTHING, fused_optimizer=ours):
            for x, y, times in batches([True, False, True, False, False]):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.float16):
                    loss = F.mse_loss(model(x), y) * times
                scaler.scale(loss).backward()
                if unscales:
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        found.append(torch.cat([bits(model.parameters()), torch.tensor([scaler.get_scale()])]))
    assert torch.equal(*found)


def test_every_kind_is_among_these() -> None:
    assert {KINDS[kind][0] for kind in SCALED} | {torch.optim.AdamW} == {cls for cls, _ in KINDS.values()}


@pytest.mark.parametrize("kind", SCALED)
def test_with_windows_of_micro_batches(kind: str) -> None:
    found = []
    for ours in (True, False):
        model = perceptron()
        optimizer = make(kind, model.parameters(), fused=None if ours else True)
        with turbo(NOTHING, fused_optimizer=ours, accumulate=2 if ours else 1):
            for number, (x, y, _) in enumerate(batches([False] * 5)):
                if ours or number % 2 == 0:
                    optimizer.zero_grad()
                (F.mse_loss(model(x), y) / (1 if ours else 2)).backward()
                # The last window has one only, and its step is taken when the block ends.
                if ours or number % 2 == 1 or number == 4:
                    optimizer.step()
        found.append(bits(model.parameters()))
    assert torch.equal(*found)
