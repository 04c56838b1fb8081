"""Code that has a gradient scaler or an autocast of its own keeps it, in a block, and is never scaled twice."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.scaling import doubled, failing, inside, losses, ordinary, roots, stepping
from tests.scaling.loops import (
    CACHELESS,
    LOOPS,
    OPTIONS,
    STEPS,
    ByHand,
    Untouched,
    block_around_all,
    by_hand,
    differences,
    net,
    outcome,
    read,
    regression,
    sgd,
    untouched,
)
from torchturbo import turbo
from torchturbo.errors import ScalingError

assert all((doubled, failing, inside, losses, ordinary, roots, stepping)), "importing them fills LOOPS"

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward:UserWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning"),
]


def fp16() -> turbo:
    return turbo("fast", autocast="fp16", **OPTIONS)


@pytest.mark.parametrize("name", LOOPS)
def test_a_scaler_of_ones_own_is_left_to_itself(name: str) -> None:
    with fp16() as active:
        found = by_hand(LOOPS[name])
    assert not differences(found, by_hand(LOOPS[name]))
    assert (active.scaler.get_scale(), active.scaler.skipped_steps) == (OPTIONS["init_scale"], 0)


def test_the_report_says_so() -> None:
    with fp16() as active:
        by_hand(LOOPS["basic"])
        assert "GradScaler" in str(active.report())


@pytest.mark.parametrize("name", ["basic", "clip_by_norm", "accumulation", "gan", "step_that_calls_torchs"])
def test_a_scaler_that_is_disabled_does_not_count(name: str) -> None:
    """As the one switch of a script that can do without."""
    torch.manual_seed(0)
    by = ByHand(name not in CACHELESS, enabled=False)
    made = LOOPS[name](by)
    with fp16() as active:
        seen = [read(made.step(step)) for step in range(STEPS)]
    assert not differences(outcome(made, seen, active.scaler, active.scaler.skipped_steps), by_hand(LOOPS[name]))


class WithAutocast(Untouched):
    """An untouched loop of somebody who wrote autocast into it, and no scaler."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def forward(self) -> torch.autocast:
        return torch.autocast("cpu", **self.options)


@pytest.mark.parametrize("name", ["basic", "clip_by_norm", "gradient_penalty", "gan", "moving_average"])
def test_an_autocast_of_ones_own_is_scaled_as_any_other(name: str) -> None:
    def recipe(by: Any) -> Any:
        return LOOPS[name](WithAutocast(dtype=torch.float16, cache_enabled=name not in CACHELESS))

    assert not differences(untouched(recipe, block_around_all), by_hand(LOOPS[name]))


def test_an_autocast_to_bf16_of_ones_own_is_kept() -> None:
    """In which gradients are scaled all the same, to the same bits wherever nothing overflows."""

    def trained(around: Any) -> list[Tensor]:
        torch.manual_seed(0)
        made = LOOPS["basic"](WithAutocast(dtype=torch.bfloat16))
        with around:
            for step in (1, 2, 3, 4):
                made.step(step)
        return [parameter.detach() for parameter in made.models[0].parameters()]

    assert all(map(torch.equal, trained(fp16()), trained(nullcontext())))


def mixed(model: nn.Module, own: torch.amp.GradScaler, order: tuple[bool, ...]) -> None:
    optimizer = sgd(model)
    for number, scaled in enumerate(order):
        loss = regression(model, number + 1)
        (own.scale(loss) if scaled else loss).backward()
    own.step(optimizer)


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_one_loss_scaled_and_another_not_is_refused(order: tuple[bool, ...]) -> None:
    with fp16(), pytest.raises(ScalingError, match="GradScaler"):
        mixed(net(), torch.amp.GradScaler("cpu"), order)


def test_the_sum_of_a_scaled_loss_and_another_one_is_refused_or_left_alone() -> None:
    """There is no telling from outside; what matters is that it is not scaled again."""
    model = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    with fp16():
        loss = scaler.scale(regression(model, 1)) + 0
        try:
            loss.backward()
        except ScalingError:
            return
    with torch.autocast("cpu", torch.float16):
        loss = regression(model, 1)
    right = torch.autograd.grad(loss * 2.0**4, list(model.parameters()))
    assert all(
        parameter.grad is not None and torch.equal(parameter.grad, gradient)
        for parameter, gradient in zip(model.parameters(), right, strict=True)
    )


def test_another_block_scales_what_has_no_scaler() -> None:
    with fp16():
        first = by_hand(LOOPS["basic"])
    assert not differences(untouched(LOOPS["basic_adam"]), by_hand(LOOPS["basic_adam"]))
    assert not differences(first, by_hand(LOOPS["basic"]))
