"""Autocast that a loop enters by itself, in a block: where it is around whole forward passes it is the loop's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.regions.watching import RIGHT, Watched, under_autocast
from torchturbo import accelerate, turbo
from torchturbo._report import gather


def own(**asked: Any) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, **asked)


class Model(nn.Module):
    """Two layers, of which the first may be computed under an autocast of its own."""

    def __init__(self, *, island: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.island = nn.Linear(8, 16), nn.Linear(16, 8), island

    def forward(self, x: Tensor) -> Tensor:
        if self.island:
            with own():
                x = self.first(x)
        else:
            x = self.first(x)
        result: Tensor = self.last(x.relu())
        return result


class Loop:
    """A loop with autocast of its own around the forward, and products in float32 after it."""

    def __init__(self, *, around: Callable[[], Any] = own, model: nn.Module | None = None) -> None:
        self.around, self.model, self.seen = around, Model() if model is None else model, list[bool]()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, step: int) -> Tensor:
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
        with self.around():
            y: Tensor = self.model(x)
        return y.float()

    def step(self, step: int) -> None:
        y = self.forward(step)
        self.seen.append(under_autocast())
        self.optimizer.zero_grad()
        ((y @ y.T).float().square().mean() * self.scale).backward()
        self.optimizer.step()

    def parameters(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.model.parameters()]


def test_from_its_first_backward_on_autocast_is_the_loops() -> None:
    loop = Loop()
    with turbo("fast") as active:
        for step in range(4):
            loop.step(step)
        row = gather(active)["autocast"]
    assert loop.seen == [True] + [False] * 3
    assert (row.now, row.effective, row.note) == (None, False, None)
    where = f"{__file__}:{Loop.forward.__code__.co_firstlineno + 2}"
    assert row.reason == f"left to the torch.autocast that the code enters by itself, at {where}"


def test_the_bits_are_those_of_the_loop_alone() -> None:
    """But for what follows the first forward, before the first backward has shown whose autocast is."""
    loops = [Loop(), Loop()]
    for loop, block in zip(loops, (turbo("exact"), turbo("fast")), strict=True):
        with turbo("exact"):
            loop.step(0)
        with block:
            loop.forward(0).sum().backward()
            for step in range(1, 5):
                loop.step(step)
    assert all(map(torch.equal, loops[0].parameters(), loops[1].parameters()))


def test_steps_with_closures_do_not_switch_it_on_again() -> None:
    class Closed(Loop):
        def step(self, step: int) -> None:
            def closure() -> Tensor:
                loss = self.forward(step).square().mean()
                self.seen.append(under_autocast())
                loss.backward()
                return loss

            self.optimizer.step(closure)
            assert not under_autocast()

    for profile in ("bf16", "fp16"):
        loop = Closed()
        with turbo("fast", autocast=profile):
            for step in range(3):
                loop.step(step)
        assert loop.seen == [True, False, False]


def test_the_next_block_begins_anew_and_everything_is_put_back() -> None:
    loop = Loop()
    for _ in range(2):
        with turbo("fast"):
            loop.step(0)
            loop.step(1)
        assert not under_autocast()
        assert torch.is_autocast_cache_enabled()
    assert loop.seen == [True, False] * 2


def test_a_block_in_it_has_its_own_and_gives_it_back() -> None:
    loop = Loop()
    with turbo("fast"):
        loop.step(0)
        with turbo("fast"):
            assert under_autocast()
        assert not under_autocast()
        assert gather()["autocast"].reason is not None
    assert gather()["autocast"].reason is None


def test_code_in_turns_keeps_it() -> None:
    @accelerate
    def steps(loop: Loop) -> Any:
        for step in range(3):
            loop.step(step)
            yield

    loop = Loop()
    for _ in steps(loop):
        assert not under_autocast()
    assert loop.seen == [True, False, False]


def test_around_a_part_of_the_model_it_is_an_island_in_the_blocks() -> None:
    for model in (Model(island=True), nn.Sequential(Model(), Model(island=True))):
        loop = Loop(around=torch.enable_grad, model=model)
        with turbo("fast") as active:
            for step in range(3):
                loop.step(step)
            assert gather(active)["autocast"].effective
        assert loop.seen == [True] * 3


def test_around_a_validation_it_is_no_sign_of_anything() -> None:
    loop = Loop(around=torch.enable_grad)
    with turbo("fast"):
        with torch.no_grad(), own():
            loop.model(torch.ones(4, 8))
        loop.step(0)
        loop.step(1)
    assert loop.seen == [True, True]


def test_around_backward_too_the_block_goes_on_keeping_it_out_of_that() -> None:
    watched = Watched()
    with turbo("fast"):
        for _ in range(2):
            with own():
                assert watched.train() == RIGHT
        assert under_autocast()


def test_switched_off_it_is_no_sign_either() -> None:
    loop = Loop(around=lambda: own(enabled=False))
    with turbo("fast"):
        loop.step(0)
        loop.step(1)
    assert loop.seen == [True, True]


def test_where_no_backward_comes_little_is_kept() -> None:
    from torchturbo.regions._here import thread

    model = Model()
    with turbo("fast"):
        for _ in range(100):
            with own():
                model(torch.ones(1, 8))
        assert len(thread.here.spans) == 64
    assert thread.here.spans == []


def test_a_scaler_of_the_blocks_goes_on_and_a_loops_own_is_left_alone() -> None:
    class Scaled(Loop):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

        def step(self, step: int) -> None:
            loss = self.forward(step).square().mean()
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.seen.append(under_autocast())
            self.scaler.step(self.optimizer)
            self.scaler.update()

    loops = [Scaled(around=lambda: torch.autocast("cpu", torch.float16)) for _ in range(2)]
    for loop, profile in zip(loops, ({"autocast": None}, {"autocast": "fp16"}), strict=True):
        loop.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        with turbo("fast", **profile) as active:
            for step in range(4):
                loop.step(step)
            row = gather(active)["autocast"]
    assert all(map(torch.equal, loops[0].parameters(), loops[1].parameters()))
    assert "GradScaler of the code's own" in str(row.note)
    assert str(row.reason).startswith("left to the torch.autocast")
