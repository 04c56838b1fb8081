"""Blocks around steps: nested, in threads, left in any order, and whoever else is at work."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.fused.loops import bits, fused, make, parameters, take, trained
from torchturbo import accelerate

MODULES = [sys.modules[f"torch.optim.{name}"] for name in ("adam", "sgd", "adagrad")]


def computing() -> list[Any]:
    """What steps call, by module."""
    return [vars(module)[module.__name__.rpartition(".")[2]] for module in MODULES]


def steps_fused() -> bool:
    """Whether steps taken here and now have the bits of fused ones."""
    params = parameters()
    take(make("Adam", params), *range(9))
    return torch.equal(bits(params), trained("Adam", *range(9), fused=True))


def test_nothing_stays_in_torch() -> None:
    before = computing()
    with fused(False):
        assert computing() == before
    for wanted in (True, "auto"):
        with fused(wanted):
            inside = computing()
            assert all(one is not other for one, other in zip(inside, before, strict=True))
            with fused(False), fused():
                assert computing() == inside
        assert computing() == before


def test_blocks_in_blocks() -> None:
    assert not steps_fused()
    with fused():
        assert steps_fused()
        with fused(False):
            assert not steps_fused()
            with fused("auto"):
                assert steps_fused()
            assert not steps_fused()
        assert steps_fused()
    assert not steps_fused()


def test_exits_in_any_order() -> None:
    first, second, third = fused(), fused(False), fused()
    first.__enter__()
    second.__enter__()
    third.__enter__()
    first.__exit__(None, None, None)
    assert steps_fused()
    third.__exit__(None, None, None)
    assert not steps_fused()
    second.__exit__(None, None, None)
    assert not steps_fused()


def test_another_thread_is_unaffected() -> None:
    found: list[bool] = []

    def elsewhere(wanted: bool | None) -> None:
        if wanted is None:
            found.append(steps_fused())
        else:
            with fused(wanted):
                found.append(steps_fused())

    with fused():
        for wanted in (None, False, True):
            thread = threading.Thread(target=elsewhere, args=(wanted,))
            thread.start()
            thread.join()
        assert steps_fused()
    assert found == [False, False, True]


def test_one_optimizer_in_two_threads() -> None:
    ours = parameters()
    optimizer = make("Adam", ours)
    with fused():
        take(optimizer, 1)
        thread = threading.Thread(target=take, args=(optimizer, 2))
        thread.start()
        thread.join()
        take(optimizer, 3)
    theirs = parameters()
    by_hand = make("Adam", theirs)
    for seed, on in ((1, True), (2, False), (3, True)):
        with fused(on):
            take(by_hand, seed)
    assert torch.equal(bits(ours), bits(theirs))


def test_a_step_that_raises_leaves_nothing() -> None:
    before = computing()
    params = parameters()
    optimizer = make("Adam", params)
    with fused():
        take(optimizer, 1)
    optimizer.register_step_post_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError), fused():
        take(optimizer, 2)
    assert computing() == before
    assert optimizer.param_groups[0]["fused"] is None
    assert torch.equal(bits(params), trained("Adam", 1, 2, fused=True))


def test_a_kernel_that_raises_counts_no_step() -> None:
    params = parameters()
    optimizer = make("Adam", params)
    with fused():
        take(optimizer, 1)
        optimizer.param_groups[0]["lr"] = "much"
        with pytest.raises((TypeError, RuntimeError)):
            take(optimizer, 2)
    assert optimizer.param_groups[0]["fused"] is None


def test_subclasses_that_step_as_their_parents_do() -> None:
    class Counting(torch.optim.AdamW):
        taken = 0

        def step(self, closure: Any = None) -> Any:
            self.taken += 1
            return super().step(closure)

    class Inheriting(torch.optim.AdamW):
        pass

    for kind in (Counting, Inheriting):
        found = []
        for by_hand in (False, True):
            params = parameters()
            optimizer = kind(params, lr=0.01, fused=by_hand or None)
            with fused(not by_hand):
                take(optimizer, 1, 2)
            found.append(bits(params))
        assert torch.equal(*found)


def test_in_functions_and_generators_in_their_turns() -> None:
    @accelerate(profile="exact", fused_optimizer=True)
    def training() -> Iterator[bool]:
        yield steps_fused()
        yield steps_fused()

    found = []
    for inside in training():
        found.append((inside, steps_fused()))
    assert found == [(True, False)] * 2
    assert accelerate(steps_fused, profile="exact", fused_optimizer=True)()


@pytest.fixture
def patches() -> Iterator[None]:
    """Puts back what a test patches for good."""
    before = computing()
    yield
    for module, theirs in zip(MODULES, before, strict=True):
        setattr(module, module.__name__.rpartition(".")[2], theirs)


def patch(called: list[str]) -> None:
    adam: Any = MODULES[0]

    def patched(*args: Any, compute: Callable[..., Any] = adam.adam, **kwargs: Any) -> Any:
        called.append("fused" if kwargs["fused"] else "plain")
        return compute(*args, **kwargs)

    adam.adam = patched


def test_somebody_who_patched_before_is_called(patches: None) -> None:
    called: list[str] = []
    patch(called)
    with fused():
        take(make("Adam", parameters()), 1)
    take(make("Adam", parameters()), 1)
    assert called == ["fused", "plain"]


def test_somebody_who_patches_in_a_block_keeps_their_patch(patches: None) -> None:
    called: list[str] = []
    with fused():
        patch(called)
        assert steps_fused()
    assert not steps_fused()
    with fused():
        assert steps_fused()
    assert called


COMPILED = """
import torch
from tests.fused.loops import bits, fused, give, make, parameters

found = []
for wanted in (False, True):
    params = parameters(shapes=((3, 3),))
    optimizer = make("Adam", params)
    step = torch.compile(optimizer.step, backend="eager")
    for seed in range(9):
        give(params, seed)
        with fused(wanted and seed % 2 == 0):
            step()
    found.append(bits(params))
assert torch.equal(*found), found
"""


@pytest.mark.slow
def test_a_compiled_step_stays_compiled() -> None:
    # In a process of its own: what Dynamo imports for optimizers warns.
    subprocess.run([sys.executable, "-c", COMPILED], check=True, capture_output=True, timeout=300)
