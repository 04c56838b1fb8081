"""Two players with an optimizer each: one's backward leaves gradients in the other, which are not its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.accumulating.loops import AUTOCASTS, Autocast, differs, forward
from torchturbo import turbo

SCALE = 256.0
"""Small, so that it never moves: by hand it must not, between the steps of two optimizers in the middle of a window."""


class Gan:
    """A generator and a discriminator, part of which some of its own batches do not use."""

    def __init__(self, micro: int, unused: tuple[int, ...], clip: bool, clears: bool) -> None:
        torch.manual_seed(0)
        self.made, self.seen, self.part = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.judges = [*self.seen.parameters(), *self.part.parameters()]
        self.makes = list(self.made.parameters())
        self.maker = torch.optim.Adam(self.makes, 0.01)
        self.judge = torch.optim.Adam(self.judges, 0.01)
        self.data = [(torch.randn(3, 4), torch.randn(3, 4)) for _ in range(micro)]
        self.unused, self.clips, self.to_none = unused, clip, not clears

    def judged(self, x: Tensor, part: bool) -> Tensor:
        seen: Tensor = self.seen(x)
        return ((seen + self.part(x).sin()) if part else seen).float().tanh().mean()

    def judge_loss(self, number: int) -> Tensor:
        noise, real = self.data[number]
        part = number not in self.unused
        both = torch.cat([self.made(noise).detach().float(), real])
        return self.judged(both[:3], part) - self.judged(both[3:], part) * 2

    def maker_loss(self, number: int) -> Tensor:
        return -self.judged(self.made(self.data[number][0]), True)

    def clip(self, parameters: list[nn.Parameter]) -> None:
        if self.clips:
            nn.utils.clip_grad_norm_(parameters, 0.01)

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=self.to_none)

    def result(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in (*self.judges, *self.makes)]


def untouched(gan: Gan, every: int, autocast: Autocast) -> list[Tensor]:
    with turbo("fast", autocast=autocast, accumulate=every, init_scale=SCALE):  # type: ignore[arg-type]
        for number in range(len(gan.data)):
            gan.clear(gan.judge)
            gan.judge_loss(number).backward()
            gan.clip(gan.judges)
            gan.judge.step()
            gan.clear(gan.maker)
            gan.maker_loss(number).backward()
            gan.clip(gan.makes)
            gan.maker.step()
    return gan.result()


def by_hand(gan: Gan, every: int, autocast: Autocast) -> list[Tensor]:
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=autocast == "fp16")

    def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], update: bool) -> None:
        scaler.unscale_(optimizer)
        gan.clip(parameters)
        scaler.step(optimizer)
        gan.clear(optimizer)
        if update:
            scaler.update()

    waiting = 0
    with turbo("fast", autocast=None):
        for number in range(len(gan.data)):
            waiting += 1
            with forward(autocast):
                loss = gan.judge_loss(number)
            scaler.scale(loss / every).backward()
            if waiting == every:
                step(gan.judge, gan.judges, True)
            for parameter in gan.judges:
                parameter.requires_grad_(False)
            with forward(autocast):
                loss = gan.maker_loss(number)
            scaler.scale(loss / every).backward()
            for parameter in gan.judges:
                parameter.requires_grad_(True)
            if waiting == every:
                step(gan.maker, gan.makes, True)
                waiting = 0
        if waiting:
            step(gan.judge, gan.judges, False)
            step(gan.maker, gan.makes, True)
    return gan.result()


@pytest.mark.parametrize("autocast", AUTOCASTS)
@pytest.mark.parametrize("unused", [(), (0,), (1,), (4,), (2, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("clears", [False, True])
def test_what_the_other_leaves_is_not_in_the_sum(autocast: Autocast, unused: tuple[int, ...], clears: bool) -> None:
    if clears and len(unused) == 5:
        pytest.skip("in place, what the other has left is cleared to zeros, where there would be nothing by hand")
    for every, micro in ((1, 3), (2, 4), (2, 5), (3, 5)):
        for clip in (False, True):
            found, expected = (
                train(Gan(micro, unused, clip, clears), every, autocast) for train in (untouched, by_hand)
            )
            said = differs(found, expected)
            assert said is None, f"every {every} of {micro}, clip={clip}: {said}"


def test_one_that_steps_more_often_has_windows_of_its_own() -> None:
    """Five steps of the critic for one of the generator, as Wasserstein GANs have it."""
    critic, maker = nn.Linear(2, 1), nn.Linear(2, 2)
    steps = {"critic": 0, "maker": 0}
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (critic, maker)]
    for name, optimizer in zip(steps, optimizers, strict=True):

        def count(*_: object, name: str = name) -> None:
            steps[name] += 1

        optimizer.register_step_post_hook(count)
    with turbo("fast", autocast=None, accumulate=2):
        for number in range(20):
            optimizers[0].zero_grad()
            critic(maker(torch.ones(1, 2)).detach()).sum().backward()
            optimizers[0].step()
            if number % 5 == 4:
                optimizers[1].zero_grad()
                (-critic(maker(torch.ones(1, 2))).sum()).backward()
                optimizers[1].step()
    assert steps == {"critic": 10, "maker": 2}


def test_one_graph_may_have_two_backwards() -> None:
    def train(accumulate: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(4, 3)
        with turbo("fast", autocast=None, accumulate=accumulate):
            for number in range(4):
                if accumulate > 1 or number % 2 == 0:
                    optimizer.zero_grad()
                loss = model(x[number : number + 1]).tanh().sum()
                for _ in range(2):
                    (loss if accumulate > 1 else loss / 2).backward(retain_graph=True)
                if accumulate > 1 or number % 2:
                    optimizer.step()
        return model.weight.detach()

    assert torch.equal(train(2), train(1))
