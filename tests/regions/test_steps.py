"""Optimizer steps: what their closures see, and what comes of one that raises."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.regions.watching import ALL_OFF, RIGHT, Watched, in_place, under_autocast
from torchturbo import turbo


def test_a_closure_runs_as_the_loop_around_it(watched: Watched) -> None:
    stepper = torch.optim.LBFGS(watched.model.parameters(), max_iter=2)
    seen: list[bool] = []

    def closure() -> Tensor:
        stepper.zero_grad()
        loss = watched.loss()
        loss.backward()
        seen.append(under_autocast())
        return loss.detach()

    for call in (lambda: stepper.step(closure), lambda: stepper.step(closure=closure)):
        with turbo("fast"):
            call()
            assert under_autocast()
            with turbo("exact"):
                call()
        assert seen == [True, True, False, False]
        seen.clear()


def test_what_follows_a_closure_in_a_step_runs_without_autocast(watched: Watched) -> None:
    seen = []

    class Following(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for _ in range(2):
                closure()
                seen.append(under_autocast())

    with turbo("fast"):
        Following(watched.model.parameters()).step(watched.loss)
    assert seen == [False, False]


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise ValueError("no step today")
        return super().step(closure)


@pytest.fixture
def failing() -> Watched:
    return Watched(Failing)


def fail(watched: Watched) -> None:
    watched.optimizer.fails = True
    with contextlib.suppress(ValueError):
        watched.train()
    watched.optimizer.fails = False


def test_autocast_is_on_again_after_a_step_that_raised(failing: Watched) -> None:
    with turbo("fast"):
        fail(failing)
        assert under_autocast()
        assert failing.train() == RIGHT


@pytest.mark.parametrize("heals", ["backward", "step"])
def test_a_kept_exception_holds_autocast_off_until_the_next_backward_or_step(failing: Watched, heals: str) -> None:
    failing.optimizer.fails = True
    with turbo("fast"):
        with pytest.raises(ValueError, match="no step today") as kept:
            failing.train()
        failing.optimizer.fails = False
        if heals == "step":
            failing.optimizer.step()
        else:
            failing.loss().backward()
            failing.loss()
        assert under_autocast()
        assert failing.train() == RIGHT
    assert kept.value.__traceback__ is not None


def test_an_exception_let_go_later_changes_nothing_then(failing: Watched) -> None:
    kept: list[BaseException] = []
    failing.optimizer.fails = True
    with turbo("fast"):
        try:
            failing.train()
        except ValueError as error:
            kept.append(error)
    failing.optimizer.fails = False
    failing.model.weight.register_hook(lambda grad: kept.clear())
    failing.model.weight.register_hook(failing.saw("later in backward"))
    with turbo("fast"):
        assert failing.train() == {**RIGHT, "later in backward": False}


@pytest.mark.parametrize("inner", ["fast", "exact", "inference"])
def test_a_block_after_a_step_that_raised_hides_it_from_nobody(failing: Watched, inner: str) -> None:
    with turbo("fast"):
        fail(failing)
        with turbo(inner):
            assert under_autocast() == (inner != "exact")
        assert under_autocast()
        assert failing.train() == RIGHT


def test_leaving_with_the_error_of_a_step_leaves_nothing(failing: Watched) -> None:
    before = in_place()
    failing.optimizer.fails = True
    with pytest.raises(ValueError, match="no step today"), turbo("fast"):
        failing.train()
    assert in_place() == before
    assert not under_autocast()
    failing.optimizer.fails = False
    assert failing.train() == ALL_OFF
    with turbo("fast"):
        assert failing.train() == RIGHT


def test_a_closure_that_raises(watched: Watched) -> None:
    stepper = torch.optim.LBFGS(watched.model.parameters())

    def closure() -> Tensor:
        raise ValueError("no loss today")

    with turbo("fast"):
        with contextlib.suppress(ValueError):
            stepper.step(closure)
        assert watched.train() == RIGHT


@pytest.mark.parametrize("positional", [True, False])
def test_a_hook_of_ones_own_may_give_other_arguments(watched: Watched, positional: bool) -> None:
    closure = watched.loss

    def hook(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((args[0], closure), {}) if positional else (tuple(args), {"closure": closure})

    seen = []
    watched.optimizer.register_step_pre_hook(hook)
    watched.optimizer.register_step_post_hook(lambda *args: seen.append(under_autocast()))
    with turbo("fast"):
        for _ in range(2):
            watched.loss().backward()
            watched.optimizer.step()
            assert under_autocast()
    assert seen == [False, False]


@pytest.mark.parametrize("failing_too", [False, True])
def test_a_step_inside_a_step(watched: Watched, failing_too: bool) -> None:
    """As optimizers have that hold others; with the inner one raising, and the outer one going on."""
    inner = Watched(Failing)
    inner.optimizer.fails = failing_too
    seen = []

    class Outer(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            with contextlib.suppress(ValueError):
                inner.optimizer.step()
            seen.append(under_autocast())
            return super().step(closure)

    outer = Outer(watched.model.parameters())
    with turbo("fast"):
        for _ in range(2):
            watched.loss().backward()
            outer.step()
            assert under_autocast()
        assert watched.train() == RIGHT
    assert seen == [False, False]
