"""Backward and steps run without autocast, and forwards under it, whatever stands around them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from tests.regions.watching import ALL_OFF, RIGHT, Watched, in_place, under_autocast
from tests.witness.children import Answer, in_child
from torchturbo import turbo
from torchturbo.regions._calls import module_calls
from torchturbo.testing import pretend_hardware


def test_each_part_of_a_step_runs_as_it_should(watched: Watched) -> None:
    with turbo("fast"):
        assert watched.train() == RIGHT
    assert watched.train() == ALL_OFF


def test_autograd_grad_runs_without(watched: Watched) -> None:
    with turbo("fast"):
        torch.autograd.grad(watched.loss(), watched.model.weight)
    assert watched.seen == {"forward": True, "backward": False}


def test_a_backward_that_raises_leaves_autocast_on(watched: Watched) -> None:
    def refuse(grad: Tensor) -> None:
        raise ValueError("no gradients today")

    watched.model.bias.register_hook(refuse)
    with turbo("fast"):
        with pytest.raises(ValueError, match="no gradients today"):
            watched.loss().backward()
        assert under_autocast()


def test_on_a_gpu_it_is_the_gpu_that_is_watched(watched: Watched) -> None:
    watched.model.weight.register_hook(watched.saw("backward on cuda", "cuda"))
    with pretend_hardware("A100"), turbo("fast"):
        assert (under_autocast("cuda"), under_autocast("cpu")) == (True, False)
        with torch.autocast("cpu", torch.bfloat16):
            watched.loss().backward()
        assert under_autocast("cuda")
    assert watched.seen == {"forward": True, "backward on cuda": False, "backward": True}, "the user's own is theirs"


# ----------------------------------------------------------------------------------------------------- blocks


def test_exact_inside_fast_is_exact(watched: Watched) -> None:
    with turbo("fast"):
        with turbo("exact"):
            assert watched.train() == ALL_OFF
        assert watched.train() == RIGHT


def test_fast_inside_exact_is_fast(watched: Watched) -> None:
    with turbo("exact"):
        with turbo("fast"):
            assert watched.train() == RIGHT
        assert watched.train() == ALL_OFF


def test_ones_own_autocast_inside(watched: Watched) -> None:
    with turbo("fast"):
        with torch.autocast("cpu", enabled=False):
            assert watched.train() == ALL_OFF
        with torch.autocast("cpu", torch.bfloat16):
            assert watched.train() == RIGHT
        assert watched.train() == RIGHT


def test_ones_own_autocast_outside(watched: Watched) -> None:
    with torch.autocast("cpu", torch.float16):
        with turbo("fast"):
            assert torch.get_autocast_dtype("cpu") is torch.bfloat16
            assert watched.train() == RIGHT
        assert torch.get_autocast_dtype("cpu") is torch.float16
        assert torch.is_autocast_cache_enabled()
        assert watched.train() == dict.fromkeys(RIGHT, True), "outside of the block torch is as it always is"
    assert not under_autocast()


def test_ones_own_autocast_inside_exact_is_as_it_always_is(watched: Watched) -> None:
    with turbo("fast"), turbo("exact"), torch.autocast("cpu", torch.bfloat16):
        assert watched.train() == dict.fromkeys(RIGHT, True)


# ---------------------------------------------------------------------------------------------------- threads


def test_other_threads_are_left_alone(watched: Watched) -> None:
    def elsewhere() -> tuple[dict[str, bool], dict[str, bool]]:
        other = Watched()
        without = other.train()
        with torch.autocast("cpu", torch.bfloat16):
            return without, other.train()

    with turbo("fast"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == (ALL_OFF, dict.fromkeys(RIGHT, True))
        assert watched.train() == RIGHT


def test_the_watch_lasts_until_the_last_thread_leaves(watched: Watched) -> None:
    before = in_place()
    block = turbo("fast")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(block.__enter__).result()
        with block:
            pass
        assert in_place() != before
        assert watched.train() == ALL_OFF
        assert pool.submit(lambda: Watched().train()).result() == RIGHT
        pool.submit(block.__exit__, None, None, None).result()
    assert in_place() == before


def test_a_forked_child_goes_on() -> None:
    """A worker that is forked before the first module of a block is called, and opens one of its own later."""

    def child() -> list[int]:
        nn.Identity()(0)
        needed = [module_calls.needed]
        block.__exit__(None, None, None)
        with turbo("fast", autocast="fp16"):
            needed.append(module_calls.needed)
        return [*needed, module_calls.needed]

    block = turbo("fast", autocast="fp16")
    block.__enter__()
    try:
        assert in_child(child) == Answer([0, 1, 0])
    finally:
        block.__exit__(None, None, None)


# --------------------------------------------------------------------------- regions that end where they should not


def test_a_block_left_in_the_middle_of_backward_stays_left(watched: Watched) -> None:
    block = turbo("fast")
    block.__enter__()
    loss = watched.loss()
    watched.model.bias.register_hook(lambda grad: block.__exit__(None, None, None))
    loss.backward()
    assert not under_autocast()
    watched.model.bias._backward_hooks.clear()
    assert watched.train() == ALL_OFF


def test_a_block_entered_in_the_middle_of_backward_is_in_force(watched: Watched) -> None:
    block, seen = turbo("exact"), []
    watched.model.bias.register_hook(lambda grad: seen.append(block.__enter__()))
    with turbo("fast"):
        watched.loss().backward()
        assert not under_autocast()
        block.__exit__(None, None, None)
    assert len(seen) == 1
    assert not under_autocast()
