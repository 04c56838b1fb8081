"""How blocks that accumulate end: flushed, by an exception, within each other; and that nothing of them stays."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LRScheduler, StepLR

from torchturbo import turbo
from torchturbo.errors import AccumulationError


class Loop:
    """A loop whose gradients are all one, so that what has moved tells how often it stepped, and with what."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer] = SGD) -> None:
        self.weight = nn.Parameter(torch.zeros(()))
        self.optimizer = make([self.weight], lr=1.0)

    def micro(self, times: int = 1, gradient: float = 1.0) -> None:
        for _ in range(times):
            self.optimizer.zero_grad()
            (self.weight * gradient).backward()
            self.optimizer.step()

    @property
    def moved(self) -> float:
        return -self.weight.item()


def accumulate(every: int) -> turbo:
    return turbo("fast", autocast=None, accumulate=every)


def test_a_flush_takes_the_step_that_waits_and_begins_a_window() -> None:
    loop = Loop()
    with accumulate(4) as active:
        loop.micro(4)
        assert loop.moved == 1
        loop.micro(2)
        assert loop.moved == 1
        active.flush()
        assert loop.moved == 1.5
        active.flush()
        assert loop.moved == 1.5
        loop.micro(3)
        assert loop.moved == 1.5
        loop.micro()
        assert loop.moved == 2.5
    assert loop.moved == 2.5


def test_a_flush_leaves_the_gradients_that_the_loop_sees() -> None:
    loop = Loop()
    with accumulate(2) as active:
        loop.micro(3)
        seen = loop.weight.grad
        active.flush()
        assert loop.weight.grad is seen
        loop.optimizer.zero_grad()
        active.flush()
        assert loop.weight.grad is None


def test_which_micro_step_is_the_last() -> None:
    loop = Loop()
    for every, expected in ((1, [True] * 6), (2, [False, True] * 3), (3, [False, False, True] * 2)):
        with accumulate(every) as active:
            seen = []
            for _ in range(6):
                seen.append(active.is_last_micro_step)
                loop.micro()
        assert seen == expected
    with turbo("fast") as active:
        assert active.is_last_micro_step
        active.flush()


def codes() -> list[object]:
    engine = vars(torch.autograd)["_engine_run_backward"]
    steps = [vars(kind)["step"].__code__ for kind in (SGD, Adam)]
    schedulers = [vars(kind)["step"] for kind in (LRScheduler,)]
    return [engine, *steps, *schedulers, "retain_grad" in vars(Tensor), torch.amp.GradScaler.scale.__code__]


@pytest.mark.parametrize("where", ["backward", "step", "scheduler", "body"])
def test_an_exception_flushes_nothing_and_leaves_nothing(where: str) -> None:
    Loop(Adam)
    loop, before = Loop(), codes()
    scheduler = StepLR(loop.optimizer, 1)

    def fail(*_: object) -> None:
        raise KeyError(where)

    def train() -> None:
        with accumulate(2):
            loop.micro(3)
            if where == "backward":
                loop.weight.register_hook(fail)
            elif where == "step":
                loop.optimizer.register_step_pre_hook(fail)
            elif where == "scheduler":
                scheduler.get_lr = fail  # type: ignore[method-assign,assignment]
            else:
                fail()
            loop.micro()
            scheduler.step()

    with pytest.raises(KeyError, match=where):
        train()
    moved = 2 if where == "scheduler" else 1
    assert loop.moved == moved
    assert codes() == before
    loop.micro(0)
    with accumulate(2):
        pass  # nothing waits any more
    assert loop.moved == moved


def test_while_one_is_open_other_threads_train_as_ever() -> None:
    loop, other, errors = Loop(), Loop(), []
    scheduler = StepLR(other.optimizer, 1, 0.5)

    def train() -> None:
        try:
            other.micro()
            scheduler.step()
            other.micro()
            closure_seen = []
            other.optimizer.step(lambda: closure_seen.append(1))
            assert closure_seen == [1]
        except BaseException as error:
            errors.append(error)

    with accumulate(4):
        loop.micro(2)
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        assert not errors
        assert other.moved == 2.0
        loop.micro(2)
    assert loop.moved == 1


def test_two_threads_have_windows_of_their_own() -> None:
    loops, errors, barrier = [Loop(), Loop()], [], threading.Barrier(2)

    def train(loop: Loop, every: int) -> None:
        try:
            with accumulate(every):
                for number in range(6):
                    barrier.wait()
                    loop.micro()
                    assert loop.moved == (number + 1) // every
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=train, args=pair) for pair in zip(loops, (2, 3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_block_within_another_has_windows_of_its_own() -> None:
    outer, inner = Loop(), Loop()
    with accumulate(4) as active:
        outer.micro(3)
        with accumulate(2):
            inner.micro(3)
            assert inner.moved == 1
        assert inner.moved == 1.5
        assert outer.moved == 0
        outer.micro()
        assert outer.moved == 1
        outer.micro()
        with accumulate(2):
            inner.micro()
            active.flush()
            assert (outer.moved, inner.moved) == (1.25, 1.5)
            inner.micro()
            assert inner.moved == 2.5
        with turbo("fast", autocast=None, accumulate=1):
            outer.micro()
            assert outer.moved == 2.25


def test_a_window_outlasts_what_is_inherited_from_it() -> None:
    """A block that says nothing of accumulation is within the window of the one around it."""
    loop = Loop()
    with accumulate(2):
        loop.micro()
        with turbo("fast", autocast=None):
            loop.micro()
        assert loop.moved == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_optimizers_can_be_copied_in_a_window(copied: Callable[[Loop], Loop]) -> None:
    loop = Loop(Adam)
    with accumulate(2):
        loop.micro(3)
        other = copied(loop)
        assert other.optimizer.param_groups[0]["params"][0] is other.weight
        other.micro(2)
        assert torch.equal(other.weight, other.weight.detach())
        loop.micro()
    assert loop.optimizer.state_dict()["state"][0]["step"] == 2
    assert other.optimizer.state_dict()["state"][0]["step"] == 2
    plain = copied(loop)
    plain.micro()
    assert plain.optimizer.state_dict()["state"][0]["step"] == 3


def test_an_optimizer_whose_step_is_overridden_is_called_for_a_window_once() -> None:
    class Counting(SGD):
        steps = 0

        def step(self, closure: None = None) -> None:  # type: ignore[override]
            self.steps += 1
            super().step(closure)

    loop = Loop(Counting)
    with accumulate(3):
        loop.micro(7)
    assert loop.optimizer.steps == 3  # type: ignore[attr-defined]
    assert loop.moved == pytest.approx(2 + 1 / 3)


def test_parameters_that_come_later_are_in_the_sum_from_then_on() -> None:
    loop, late = Loop(), nn.Parameter(torch.zeros(()))
    with accumulate(2):
        loop.micro(2)
        loop.optimizer.add_param_group({"params": [late], "lr": 2.0})
        for _ in range(2):
            loop.optimizer.zero_grad()
            (loop.weight + late).backward()
            loop.optimizer.step()
    assert (loop.moved, late.item()) == (2.0, -2.0)


def test_a_flush_that_fails_closes_the_block_and_says_so() -> None:
    loop, before = Loop(), codes()[0]

    def fail(*_: object) -> None:
        raise AccumulationError("no")

    def train() -> None:
        with accumulate(2):
            loop.micro(3)
            loop.optimizer.register_step_pre_hook(fail)

    with pytest.raises(AccumulationError, match="no"):
        train()
    assert codes()[0] is before


def test_an_optimizer_within_another_steps_with_it() -> None:
    """As those of torch.distributed.optim are made, and many a Lookahead."""

    class Outer(SGD):
        def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
            super().__init__(parameters, lr)
            self.inner = SGD(parameters, lr)

        def step(self, closure: None = None) -> None:  # type: ignore[override]
            self.inner.step()

    loop = Loop(Outer)
    with accumulate(2):
        loop.micro(5)
        assert loop.moved == 2
    assert loop.moved == 2.5
