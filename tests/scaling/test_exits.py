"""Threads, blocks inside blocks, exits in any order, and errors that leave a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.regions.watching import in_place, under_autocast
from tests.scaling import doubled, inside, losses, ordinary
from tests.scaling.loops import (
    LOOPS,
    OPTIONS,
    STEPS,
    ByHand,
    Untouched,
    block_around_all,
    by_hand,
    differences,
    flat,
    net,
    outcome,
    read,
    regression,
    sgd,
    untouched,
)
from torchturbo import accelerate, turbo

assert all((doubled, inside, losses, ordinary)), "importing them fills LOOPS"


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = in_place()
    yield
    assert in_place() == before
    assert not under_autocast()


def fp16(**options: Any) -> turbo:
    return turbo("fast", autocast="fp16", **{**OPTIONS, **options})


def plain(steps: range) -> list[object]:
    torch.manual_seed(0)
    made = LOOPS["clip_by_norm"](Untouched())
    return [read(made.step(step)) for step in steps] + [made.models[0].state_dict()]


# ----------------------------------------------------------------------------------------------------------- threads


def in_turns(*bodies: Callable[[Callable[[], object]], object]) -> list[object]:
    """Each in a thread of its own, with a barrier that they meet at in each step."""
    barrier = threading.Barrier(len(bodies), timeout=60)
    results: list[object] = [None] * len(bodies)

    def run(place: int) -> None:
        try:
            results[place] = bodies[place](barrier.wait)
        except BaseException as error:
            results[place] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_threads_have_their_own_scale_and_one_outside_has_none() -> None:
    with torch.random.fork_rng():
        made = []
        for name, by in (("basic", Untouched()), ("clip_by_norm", Untouched()), ("basic", Untouched())):
            torch.manual_seed(0)
            made.append(LOOPS[name](by))
    options: tuple[dict[str, Any], ...] = ({}, {"init_scale": 2.0**24, "growth_interval": 2})

    def inside(place: int) -> Callable[[Callable[[], object]], object]:
        def body(meet: Callable[[], object]) -> object:
            with fp16(**options[place]) as active:
                seen = []
                for step in range(STEPS):
                    meet()
                    seen.append(read(made[place].step(step)))
                meet()
            return outcome(made[place], seen, active.scaler, active.scaler.skipped_steps)

        return body

    def outside(meet: Callable[[], object]) -> object:
        seen = []
        for step in range(STEPS):
            meet()
            seen.append(read(made[2].step(step)))
        meet()
        return dict(flat([*seen, made[2].models[0].state_dict()]))

    first, second, third = in_turns(inside(0), inside(1), outside)
    assert not differences(first, by_hand(LOOPS["basic"]))
    assert not differences(second, by_hand(LOOPS["clip_by_norm"], **options[1]))
    torch.manual_seed(0)
    alone = LOOPS["basic"](Untouched())
    right = dict(flat([*(read(alone.step(step)) for step in range(STEPS)), alone.models[0].state_dict()]))
    assert not differences(third, right)


@pytest.mark.filterwarnings("ignore:backward runs through an fp16 forward outside")
def test_a_backward_in_a_thread_without_a_block_is_not_scaled() -> None:
    """Of a loss that was computed in a block by another."""
    model = net()
    with fp16():
        loss = regression(model, 0)
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    with torch.autocast("cpu", torch.float16):
        right = torch.autograd.grad(regression(model, 0), list(model.parameters()))
    assert all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(model.parameters(), right, strict=True))


# ---------------------------------------------------------------------------------------------- blocks inside blocks


def scaled_by(scalers: list[ByHand | None]) -> tuple[list[object], list[tuple[float, int]]]:
    """The basic loop, each step with its own scaler, or in float32 with none."""
    torch.manual_seed(0)
    model = net()
    optimizer, seen = sgd(model), []
    for step, by in enumerate(scalers):
        optimizer.zero_grad()
        with by.forward() if by else nullcontext():
            loss = regression(model, step)
        (by.scale(loss) if by else loss).backward()
        if by:
            by.step(optimizer)
            by.update()
        else:
            optimizer.step()
        seen.append(loss.detach())
    different = {id(by): by for by in scalers if by is not None}.values()
    return [seen, model.state_dict()], [(by.scaler.get_scale(), by.skipped) for by in different]


def step_in(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
    optimizer.zero_grad()
    loss = regression(model, step)
    loss.backward()
    optimizer.step()
    return loss.detach()


def tell(*scalers: Any) -> list[tuple[float, int]]:
    return [(scaler.get_scale(), scaler.skipped_steps) for scaler in scalers]


def test_blocks_that_end_in_another_order() -> None:
    options = {"init_scale": 2.0**22}
    first, second = ByHand(**OPTIONS), ByHand(**{**OPTIONS, **options})
    expected, told = scaled_by([first] * 4 + [second] * 4 + [second] * 4)
    torch.manual_seed(0)
    model = net()
    optimizer, older, newer = sgd(model), fp16(), fp16(**options)
    of_older = older.__enter__()
    seen = [step_in(model, optimizer, step) for step in range(4)]
    of_newer = newer.__enter__()
    seen += [step_in(model, optimizer, step) for step in range(4, 8)]
    older.__exit__(None, None, None)
    seen += [step_in(model, optimizer, step) for step in range(8, 12)]
    newer.__exit__(None, None, None)
    assert not differences(dict(flat([seen, model.state_dict()])), dict(flat(expected)))
    assert tell(of_older.scaler, of_newer.scaler) == told


def test_a_block_inside_has_its_own_scale_and_gives_back_the_outer_one() -> None:
    options = {"init_scale": 2.0**22}
    first, second = ByHand(**OPTIONS), ByHand(**{**OPTIONS, **options})
    expected, told = scaled_by([first] * 4 + [second] * 4 + [first] * 4)
    torch.manual_seed(0)
    model = net()
    optimizer = sgd(model)
    with fp16() as outer:
        seen = [step_in(model, optimizer, step) for step in range(4)]
        with fp16(**options) as inner:
            seen += [step_in(model, optimizer, step) for step in range(4, 8)]
        seen += [step_in(model, optimizer, step) for step in range(8, 12)]
    assert not differences(dict(flat([seen, model.state_dict()])), dict(flat(expected)))
    assert tell(outer.scaler, inner.scaler) == told


def test_a_block_without_autocast_inside_trains_in_float32() -> None:
    by = ByHand(**OPTIONS)
    expected, told = scaled_by([by] * 4 + [None] * 4 + [by] * 4)
    torch.manual_seed(0)
    model = net()
    optimizer = sgd(model)
    with fp16() as outer:
        seen = [step_in(model, optimizer, step) for step in range(4)]
        with turbo("exact"):
            seen += [step_in(model, optimizer, step) for step in range(4, 8)]
        seen += [step_in(model, optimizer, step) for step in range(8, 12)]
    assert not differences(dict(flat([seen, model.state_dict()])), dict(flat(expected)))
    assert tell(outer.scaler) == told


@pytest.mark.parametrize("name", ["basic", "clip_by_norm", "accumulation", "checkpointed_reentrantly", "gan"])
def test_a_block_entered_within_itself(name: str) -> None:
    block = fp16()

    def way(made: Any, steps: int, options: Any) -> Any:
        seen = []
        with block, block as active:
            for step in range(steps):
                with block:
                    seen.append(read(made.step(step)))
        return seen, active.scaler

    assert not differences(untouched(LOOPS[name], way), by_hand(LOOPS[name]))


# ------------------------------------------------------------------------------------------- code that runs in turns


def test_a_decorated_generator_scales_in_its_own_turns() -> None:
    torch.manual_seed(0)
    made = LOOPS["clip_by_norm"](Untouched())

    @accelerate(profile="fast", autocast="fp16", **OPTIONS)
    def training() -> Iterator[object]:
        for step in range(STEPS):
            yield read(made.step(step))

    torch.manual_seed(0)
    other = LOOPS["basic"](Untouched())
    torch.manual_seed(0)
    alone = LOOPS["basic"](Untouched())
    seen, beside = [], []
    for step, result in enumerate(training()):
        seen.append(result)
        beside.append(read(other.step(step)))
    expected = by_hand(LOOPS["clip_by_norm"])
    found = dict(flat({"read": seen, "models": [made.models[0].state_dict()]}))
    assert not [name for name in differences(found, expected) if name in found]
    right = [read(alone.step(step)) for step in range(STEPS)]
    assert not differences(dict(flat(beside)), dict(flat(right)))


def test_after_all_blocks_training_is_as_it_was() -> None:
    before = plain(range(4))
    untouched(LOOPS["basic"], block_around_all)
    assert not differences(dict(flat(plain(range(4)))), dict(flat(before)))
