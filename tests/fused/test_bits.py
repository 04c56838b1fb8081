"""The bits are those of ``fused=True`` by hand, all along or switched to by a state_dict."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fused.loops import KINDS, Optimizer, bits, form, fused, give, make, parameters, switched, take, trained

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.matrix
@every_kind
def test_a_loop_in_a_block_is_the_loop_fused_by_hand(kind: str) -> None:
    assert torch.equal(trained(kind, 1, 2, 3, wanted=True), trained(kind, 1, 2, 3, fused=True))


@pytest.mark.matrix
@every_kind
def test_and_so_is_one_of_float64(kind: str) -> None:
    found = []
    for by_hand in (False, True):
        params = parameters(torch.float64)
        optimizer = make(kind, params, fused=by_hand or None)
        with fused(not by_hand):
            take(optimizer, 1, 2, 3)
        found.append(bits(params))
    assert torch.equal(*found)


@every_kind
def test_fused_steps_are_right(kind: str) -> None:
    torch.testing.assert_close(trained(kind, 1, 2, 3, wanted=True), trained(kind, 1, 2, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["Adam", "Adagrad", "SGD, momentum"])
def test_a_step_in_a_block_is_another_than_outside(kind: str) -> None:
    # Else nothing here would show whether anything is fused.
    assert not torch.equal(trained(kind, *range(9), wanted=True), trained(kind, *range(9)))


def test_counts_of_steps_in_float64_are_counted_on() -> None:
    # Where the default dtype is float64, torch counts in it, and fused in float32.
    torch.set_default_dtype(torch.float64)
    try:
        params = parameters()
        optimizer = make("Adam", params)
        with fused():
            take(optimizer, 1, 2)
        counts = [state["step"] for state in optimizer.state.values()]
        assert all(count.dtype is torch.float64 and count == 2 for count in counts)
        assert torch.equal(bits(params), trained("Adam", 1, 2, fused=True))
    finally:
        torch.set_default_dtype(torch.float32)


def test_parameters_of_several_dtypes_in_one_group() -> None:
    found = []
    for by_hand in (False, True):
        params = [*parameters(), *parameters(torch.float64)]
        with fused(not by_hand):
            take(make("AdamW", params, fused=by_hand or None), 1, 2)
        found.append(bits(params))
    assert torch.equal(*found)


def test_parameters_in_another_order_in_memory() -> None:
    found = []
    for by_hand in (False, True):
        params = [torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)))]
        params[0].data = params[0].data.contiguous(memory_format=torch.channels_last)
        optimizer = make("Adam", params, fused=by_hand or None)
        with fused(not by_hand):
            for seed in (1, 2, 3):
                give(params, seed)
                params[0].grad = params[0].grad.contiguous(memory_format=torch.channels_last)
                optimizer.step()
        found.append(bits(params))
    assert torch.equal(*found)


STEPS = st.lists(st.tuples(st.sampled_from([None, True, "auto", False]), st.integers(0, 31)), max_size=8)
"""For each step which block is opened (None: the newest is closed), and which parameters have a gradient, as bits."""


def _some_gradients(optimizer: Optimizer, seed: int, which: int) -> None:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    give(params, seed)
    for place, param in enumerate(params):
        if not which >> place & 1:
            param.grad = None


@given(st.sampled_from([kind for kind in KINDS if "tensor" not in kind]), STEPS)
def test_random_blocks_are_switches_by_state_dict(kind: str, steps: list[tuple[object, int]]) -> None:
    ours, theirs = parameters(), parameters()
    optimizer, by_hand = make(kind, ours), make(kind, theirs)
    # Every momentum begins at once: torch's fused SGD knows no other case.
    take(optimizer, 0)
    take(by_hand, 0)
    opened = []
    for seed, (block, which) in enumerate(steps, 1):
        if block is not None:
            opened.append((fused(block), block))
            opened[-1][0].__enter__()
        elif opened:
            opened.pop()[0].__exit__(None, None, None)
        wanted = opened[-1][1] if opened else False
        by_hand = switched(by_hand, wanted is True or (wanted == "auto" and kind != "SGD"))
        for one in (optimizer, by_hand):
            _some_gradients(one, seed, which)
            one.step()
        assert form(optimizer) == form(switched(by_hand, False))
    while opened:
        opened.pop()[0].__exit__(None, None, None)
    assert torch.equal(bits(ours), bits(theirs))
