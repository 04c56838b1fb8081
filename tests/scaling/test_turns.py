"""Generators and coroutines that train, and are left and come back to between any two lines of their loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from tests.regions.watching import under_autocast
from tests.scaling.loops import OPTIONS, STEPS, ByHand, Untouched, differences, flat, net, regression, sgd
from torchturbo import accelerate, scaler_of, turbo

FP16: dict[str, Any] = {"autocast": "fp16", **OPTIONS}


def training(by: Any, seen: list[object], seed: int = 0) -> Iterator[str]:
    """Stops after every line, and multiplies gradients with each other between backward and the step."""
    torch.manual_seed(seed)
    model = net()
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        yield "zero_grad"
        with by.forward():
            loss = regression(model, step)
        yield "forward"
        by.scale(loss).backward()
        yield "backward"
        by.unscale(optimizer)
        gradient = model[2].weight.grad
        gradient.copy_(gradient - 0.1 * gradient @ gradient.T @ gradient / gradient.norm() ** 2)
        yield "surgery"
        by.step(optimizer)
        by.update()
        seen.append(loss.detach())
        yield "step"
    seen.append(model.state_dict())


def alone(by: Any, seed: int = 0) -> dict[str, object]:
    seen: list[object] = []
    for _ in training(by, seen, seed):
        pass
    return dict(flat(seen))


def test_generators_take_turns_with_each_other_and_with_code_outside() -> None:
    decorated = [accelerate(training, profile="fast", **FP16) for _ in range(2)]
    seen: list[list[object]] = [[], [], []]
    runs = [train(Untouched(), what, seed) for seed, (train, what) in enumerate(zip(decorated, seen, strict=False))]
    runs.append(training(Untouched(), seen[2], 2))
    ahead = [1, 2, 3]
    while runs:
        # Each goes on by another number of lines, so that they meet in all places.
        for run, lines in list(zip(runs, ahead, strict=False)):
            for _ in range(lines):
                if run in runs and next(run, None) is None:
                    runs.remove(run)
            assert not under_autocast()
    for place in (0, 1):
        by = ByHand(**OPTIONS)
        assert not differences(dict(flat(seen[place])), alone(by, place))
        scaler = scaler_of(decorated[place])
        assert (scaler.get_scale(), scaler.skipped_steps) == (by.scaler.get_scale(), by.skipped)
    assert not differences(dict(flat(seen[2])), alone(Untouched(), 2))


def test_a_generator_inside_a_block_of_the_loop_around_it() -> None:
    seen: list[object] = []
    beside: list[object] = []
    decorated = accelerate(training, profile="fast", **FP16)
    with turbo("fast", **FP16) as active:
        for _ in zip(decorated(Untouched(), seen, 0), training(Untouched(), beside, 1), strict=True):
            pass
    by = ByHand(**OPTIONS)
    assert not differences(dict(flat(seen)), alone(by))
    assert not differences(dict(flat(beside)), alone(ByHand(**OPTIONS), 1))
    assert active.scaler is not None
    assert active.scaler.get_scale() == by.scaler.get_scale()


def test_coroutines_take_turns() -> None:
    async def train(by: Any, seed: int) -> list[object]:
        seen: list[object] = []
        for _ in training(by, seen, seed):
            await asyncio.sleep(0)
        return seen

    async def steps(by: Any, seed: int) -> AsyncIterator[list[object]]:
        seen: list[object] = []
        for line in training(by, seen, seed):
            await asyncio.sleep(0)
            if line == "backward":
                yield seen
        yield seen

    async def together() -> list[list[object]]:
        one = accelerate(train, profile="fast", **FP16)
        two = accelerate(steps, profile="fast", **FP16)

        async def last() -> list[object]:
            async for seen in two(Untouched(), 1):
                assert not under_autocast()
                result = seen
            return result

        return await asyncio.gather(one(Untouched(), 0), last(), train(Untouched(), 2))

    first, second, third = asyncio.run(together())
    assert not differences(dict(flat(first)), alone(ByHand(**OPTIONS), 0))
    assert not differences(dict(flat(second)), alone(ByHand(**OPTIONS), 1))
    assert not differences(dict(flat(third)), alone(Untouched(), 2))


def test_a_generator_that_is_dropped_between_backward_and_step() -> None:
    model_seen: list[object] = []
    run = accelerate(training, profile="fast", **FP16)(Untouched(), model_seen)
    for line in run:
        if line == "backward":
            break
    run.close()
    assert not under_autocast()
    weight = torch.ones(2, 2, requires_grad=True)
    with nullcontext():
        (weight @ weight).sum().backward()
    assert isinstance(weight.grad, Tensor)
    assert torch.equal(weight.grad, torch.full((2, 2), 4.0))
