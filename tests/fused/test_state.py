"""An optimizer is at any moment what it is without a block: what is saved, loaded, added and copied."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from tests.fused.loops import KINDS, Optimizer, bits, form, fused, give, make, parameters, switched, take, trained
from torchturbo.settings._base import TORCH

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.matrix
@every_kind
def test_what_is_saved_has_the_form_of_what_plain_training_saves(kind: str) -> None:
    plain, optimizer = make(kind, parameters()), make(kind, parameters())
    attributes = vars(optimizer).keys()
    with fused():
        for seed in (1, 2):
            take(plain := make(kind, parameters()), *range(1, seed + 1))
            take(optimizer, seed)
            assert form(optimizer) == form(plain)
    assert form(optimizer) == form(plain)
    assert vars(optimizer).keys() == attributes == vars(plain).keys()
    assert optimizer.defaults == plain.defaults


@every_kind
@pytest.mark.parametrize("inside", [True, False], ids=["saved inside", "saved after"])
def test_what_is_saved_loads_in_a_plain_optimizer_and_goes_on(kind: str, inside: bool) -> None:
    ours, theirs = parameters(), parameters()
    optimizer, by_hand = make(kind, ours), make(kind, theirs, fused=True)
    with fused():
        take(optimizer, 1, 2)
        saved = optimizer.state_dict() if inside else None
    file = io.BytesIO()
    torch.save(saved or optimizer.state_dict(), file)
    file.seek(0)
    plain = make(kind, ours)
    plain.load_state_dict(torch.load(file))
    take(by_hand, 1, 2)
    take(plain, 3)
    take(switched(by_hand, False), 3)
    assert torch.equal(bits(ours), bits(theirs))


@every_kind
def test_what_is_loaded_in_a_block_is_fused_from_then_on(kind: str) -> None:
    ours, theirs = parameters(), parameters()
    plain, by_hand = make(kind, ours), make(kind, theirs)
    take(plain, 1, 2)
    take(by_hand, 1, 2)
    with fused():
        optimizer = make(kind, ours, lr=0.5)
        optimizer.load_state_dict(plain.state_dict())
        take(optimizer, 3)
        # A checkpoint of a fused optimizer brings its own fused=True, and so it stays.
        optimizer.load_state_dict(switched(optimizer, True).state_dict())
        take(optimizer, 4)
    assert optimizer.param_groups[0]["fused"] is True
    take(switched(by_hand, True), 3, 4)
    assert torch.equal(bits(ours), bits(theirs))


@every_kind
def test_groups_that_are_added_in_a_block(kind: str) -> None:
    if "Adagrad" in kind and TORCH < (2, 13):
        pytest.skip("this torch's Adagrad has no state for what is added to it")
    found = []
    for by_hand in (False, True):
        params = [parameters(), parameters(shapes=((3, 3),))]
        optimizer = make(kind, params[0], fused=by_hand or None)
        with fused(not by_hand):
            take(optimizer, 1)
            optimizer.add_param_group({"params": params[1], "lr": 0.02})
            take(optimizer, 2, 3)
        assert [group["fused"] for group in optimizer.param_groups] == [by_hand or None] * 2
        found.append(bits([*params[0], *params[1]]))
    assert torch.equal(*found)


def _pickled(optimizer: Optimizer) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled])
@every_kind
def test_a_copy_made_in_a_block_is_plain_and_goes_on(kind: str, copied: Any) -> None:
    ours = parameters()
    optimizer = make(kind, ours)
    with fused():
        take(optimizer, 1, 2)
        inside = copied(optimizer)
        assert form(inside) == form(optimizer)
        take(inside, 3)
    assert torch.equal(bits(inside.param_groups[0]["params"]), trained(kind, 1, 2, 3, fused=True))
    outside = copied(inside)
    take(inside, 4)
    take(outside, 4)
    assert torch.equal(*(bits(each.param_groups[0]["params"]) for each in (inside, outside)))


def test_schedulers_and_hooks_see_a_plain_optimizer() -> None:
    params = parameters()
    optimizer = make("AdamW", params)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    seen: list[Any] = []

    def look(optimizer: Optimizer, *rest: Any) -> None:
        group = optimizer.param_groups[0]
        seen.append((group["fused"], group["foreach"], form(optimizer)["param_groups"]))

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    by_hand = parameters()
    reference = make("AdamW", by_hand, fused=True)
    other = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=0.1, total_steps=10)
    with fused():
        for seed in range(4):
            take(optimizer, seed)
            scheduler.step()
    for seed in range(4):
        take(reference, seed)
        other.step()
    assert {(group, foreach) for group, foreach, _ in seen} == {(None, None)}
    assert len(seen) == 8
    assert torch.equal(bits(params), bits(by_hand))


def test_a_hook_may_change_what_the_step_does() -> None:
    found = []
    for by_hand in (False, True):
        params = parameters()
        optimizer = make("Adam", params, fused=by_hand or None)

        def halve(optimizer: Optimizer, *rest: Any) -> None:
            for group in optimizer.param_groups:
                group["lr"] /= 2

        optimizer.register_step_pre_hook(halve)
        with fused(not by_hand):
            take(optimizer, 1, 2)
        found.append(bits(params))
    assert torch.equal(*found)


def test_a_closure_sees_a_plain_optimizer() -> None:
    params = parameters()
    optimizer = make("Adam", params)
    seen = []

    def closure() -> float:
        give(params, 1)
        seen.append(optimizer.param_groups[0]["fused"])
        return 1.0

    with fused():
        assert optimizer.step(closure) == 1.0
    assert seen == [None]
    assert torch.equal(bits(params), trained("Adam", 1, fused=True))
