"""What stays as it was made, to the bit, and is said in the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fused.loops import KINDS, bits, fused, give, make, parameters, said, take, trained
from torchturbo.settings._base import TORCH


def stays(train: Callable[[], Tensor], wanted: object = True) -> str:
    """What the report says of training that comes to the same bits in a block as without one."""
    plain = train()
    with fused(wanted):
        assert torch.equal(train(), plain)
        return said()


@pytest.mark.parametrize("option", ["foreach", "capturable", "differentiable"])
@pytest.mark.parametrize("wanted", [True, "auto"])
def test_what_asks_for_something_else(option: str, wanted: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch takes capturable only for devices that can capture.
    options = {"foreach": None, "capturable": False, "differentiable": False, option: True}
    optimizer = torch.optim.Adam(parameters(), **options)
    seen: list[Any] = []
    module: Any = sys.modules["torch.optim.adam"]
    monkeypatch.setattr(module, "adam", lambda *lists, **how: seen.append(how["fused"]))
    with fused(wanted):
        take(optimizer, 1)
        assert said() == f"Adam is left as it is: it was made with {option}=True"
    assert seen == [None]


@pytest.mark.parametrize("option", ["foreach", "fused"])
def test_what_says_no_itself_is_left_alone_by_auto(option: str) -> None:
    def train() -> Tensor:
        return trained("Adagrad", *range(9), **{option: False})

    assert stays(train, "auto") == f"Adagrad is left as it is: it was made with {option}=False"
    with fused():
        assert torch.equal(train(), trained("Adagrad", *range(9), fused=True))


def test_auto_takes_what_is_faster() -> None:
    for kind, (cls, options) in KINDS.items():
        by_hand = trained(kind, 1, 2, fused=True)
        with fused("auto"):
            params = parameters()
            take(make(kind, params), 1, 2)
            assert torch.equal(bits(params), by_hand)
            if cls is torch.optim.SGD and not options.get("momentum"):
                assert said() == "SGD is left as it is: without momentum it is no faster when fused"
            else:
                assert said() == f"{cls.__name__} is fused"


@pytest.mark.parametrize("wanted", [True, "auto"])
def test_what_was_fused_already(wanted: object) -> None:
    for kind in KINDS:
        params = parameters()
        optimizer = make(kind, params, fused=True)
        with fused(wanted):
            take(optimizer, 1, 2)
            assert said() == ""
        assert optimizer.param_groups[0]["fused"] is True
        assert torch.equal(bits(params), trained(kind, 1, 2, fused=True))


def test_sparse_gradients() -> None:
    def train() -> Tensor:
        torch.manual_seed(0)
        table = torch.nn.Embedding(5, 3, sparse=True)
        optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        for word in range(3):
            optimizer.zero_grad()
            table(torch.tensor([word, word])).sum().backward()
            optimizer.step()
        return bits(table.parameters())

    assert stays(train) == "SGD is left as it is: its gradients are sparse"


def test_complex_parameters() -> None:
    def train() -> Tensor:
        params = [torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))]
        optimizer = torch.optim.Adam(params, lr=0.1)
        for _ in range(2):
            params[0].grad = torch.full_like(params[0], 1 + 2j)
            optimizer.step()
        return torch.view_as_real(params[0].detach())

    assert stays(train) == "Adam is left as it is: fused kernels cannot compute torch.complex64"


def test_parameters_of_other_types() -> None:
    class Sharded(torch.nn.Parameter):
        pass

    def train() -> Tensor:
        param = Sharded(torch.ones(3))
        param.grad = torch.ones(3)
        torch.optim.Adam([param], lr=0.1).step()
        return bits([param])

    assert stays(train) == "Adam is left as it is: it has tensors of type Sharded"


def test_parameters_that_no_kernel_is_known_for() -> None:
    param = torch.nn.Parameter(torch.ones(3, device="meta"))
    param.grad = torch.ones(3, device="meta")
    with fused():
        torch.optim.SGD([param], lr=0.1).step()
        assert said() == ("SGD is left as it is: this torch has no fused kernel for it that is known to work on meta")


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def expanded(tensor: Tensor) -> Tensor:
    return tensor.flatten()[0].expand(tensor.shape)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["Adam", "SGD", "SGD, momentum", "Adagrad"])
@pytest.mark.parametrize("lying", [channels_last, expanded])
def test_gradients_in_another_order_in_memory(kind: str, lying: Callable[[Tensor], Tensor]) -> None:
    # torch's kernels on the CPU do not look, and compute something else; past the end of the memory even.
    def train() -> Tensor:
        params = parameters()
        optimizer = make(kind, params)
        for seed in (1, 2):
            give(params, seed)
            assert params[3].grad is not None
            params[3].grad = lying(params[3].grad)
            optimizer.step()
        return bits(params)

    assert "do not lie in memory in one order, without gaps" in stays(train)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["Adam", "SGD", "SGD, momentum", "Adagrad"])
def test_parameters_with_gaps_in_memory(kind: str) -> None:
    def train() -> Tensor:
        whole = torch.ones(6, 6)
        params = [torch.nn.Parameter(whole[:, ::2])]
        optimizer = make(kind, params)
        take(optimizer, 1, 2)
        return whole.clone()

    assert "do not lie in memory in one order, without gaps" in stays(train)


@pytest.mark.matrix
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_of_sgd_on_the_cpu(dtype: torch.dtype) -> None:
    def train() -> Tensor:
        params = parameters(dtype)
        take(make("SGD, momentum", params), 1, 2)
        return bits(params)

    plain = train()
    with fused():
        torch.testing.assert_close(train(), plain, rtol=0.05, atol=0.05)
        wrong = f"SGD is left as it is: before torch 2.15 the fused kernel computes {dtype} wrong on the CPU"
        assert said() == ("SGD is fused" if TORCH >= (2, 15) else wrong)


@pytest.mark.matrix
def test_a_momentum_that_begins_later() -> None:
    # torch's fused SGD raises a TypeError then.
    params, theirs = parameters(), parameters()
    optimizer, plain = make("SGD, momentum", params), make("SGD, momentum", theirs)
    with fused():
        for one, its in ((optimizer, params), (plain, theirs)):
            give(its[1:], 1)
            with fused(one is optimizer):
                one.step()
        give(params, 2)
        give(theirs, 2)
        with fused(False):
            plain.step()
        optimizer.step()
        assert "some of its parameters, and not all, have no momentum yet" in said()
    torch.testing.assert_close(bits(params), bits(theirs))
    assert all("momentum_buffer" in state for state in optimizer.state.values())


def test_gradients_of_another_dtype() -> None:
    def train() -> Tensor:
        param = torch.nn.Parameter(torch.ones(3))
        sgd: Any = sys.modules["torch.optim.sgd"]
        with torch.no_grad():
            how = {"lr": 0.1, "momentum": 0, "dampening": 0, "nesterov": False, "maximize": False, "weight_decay": 0}
            sgd.sgd([param], [torch.ones(3, dtype=torch.float64)], [], **how)
        return bits([param])

    assert "of another dtype or device than its parameters" in stays(train)


def test_what_a_gradient_scaler_has_given_found_inf() -> None:
    params = parameters()
    optimizer: Any = make("Adam", params)
    give(params, 1)
    optimizer.found_inf = torch.tensor(1.0)
    with fused():
        # As without a block: only fused optimizers take it.
        with pytest.raises(AssertionError):
            optimizer.step()
        assert "it has been given found_inf" in said()


def test_optimizers_of_other_kinds() -> None:
    def train() -> Tensor:
        params = parameters()
        optimizer = torch.optim.RMSprop(params, lr=0.1)
        take(optimizer, 1, 2)
        return bits(params)

    assert stays(train) == ""


def test_nothing_is_said_of_other_blocks_and_threads() -> None:
    with fused():
        take(make("AdamW", parameters()), 1)
        take(make("AdamW", parameters(), foreach=True), 1)
        assert said() == "AdamW is fused; AdamW is left as it is: it was made with foreach=True"
    assert said() == ""
    with fused():
        assert said() == ""
