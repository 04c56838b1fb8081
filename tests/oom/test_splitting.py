"""What a split step remembers, takes apart and puts together; and what on_oom="raise" says."""

from __future__ import annotations

import collections
import copy
import dataclasses
import gc
import inspect
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.oom.steps import sizes_of
from tests.oom.test_refusals import X, mean, net, plain
from torchturbo import Profile, accelerate, scaler_of, turbo
from torchturbo._oom import used as words
from torchturbo._oom.batch import Batch, parts
from torchturbo._oom.before import Before
from torchturbo._oom.freed import now_in
from torchturbo._oom.struck import is_out_of_memory
from torchturbo._oom.used import Used
from torchturbo.testing import injected_oom

TWICE = torch.cat([X, X.cos()])


def test_what_has_worked_is_remembered() -> None:
    model, step = net(), accelerate(profile="exact", on_oom="split")(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with injected_oom(3) as failed, sizes_of(model) as sizes:
        step(model, X, optimizer)
        assert failed == [8, 4, 4]
        assert sizes[-4:] == [2] * 4
        sizes.clear()
        for batch in (TWICE, X, X[:3], X[:7]):
            step(model, batch, optimizer)
    assert failed == [8, 4, 4, 7]  # what is smaller than what has failed is tried whole
    assert sizes == [*[2] * 8, *[2] * 4, 3, 7, 2, 2, 2, 1]


def test_one_that_gets_harder_is_split_further_and_told_of_when_it_does_not_fit() -> None:
    model, step = net(), accelerate(profile="exact", on_oom="split")(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with injected_oom(4):
        step(model, X, optimizer)
    with injected_oom(1), sizes_of(model) as sizes:
        step(model, X, optimizer)
    assert sizes == [4, 2, *[1] * 8]
    with injected_oom(0), pytest.raises(torch.OutOfMemoryError) as found:
        step(model, X, optimizer)
    first, *_, last = found.value.__notes__
    assert first.startswith("torchturbo: out of memory in forward on cpu: weights 268 B, the batch 128 B")
    assert last == (
        "torchturbo: tried in 8 parts: one sample alone does not fit. Everything is as it was before the call"
    )


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


@dataclasses.dataclass(frozen=True)
class Data:
    x: Tensor
    names: list[str]
    rate: float = 0.1


class Own(dict[str, Any]):
    pass


def test_batches_of_any_form_are_cut() -> None:
    names = list("abcdefgh")
    batch = {
        "pair": Pair(X, X),
        "data": Data(X, names),
        "user": collections.UserDict(x=X),
        "own": Own(x=X, position=torch.arange(4).reshape(1, 4)),
        "list": [X, 3.0, "word"],
        "weight": nn.Parameter(torch.ones(3)),
        "number": torch.tensor(2.0),
    }
    args, kwargs = Batch(lambda model, batch, other: None, (None, batch), {"other": X}).some(slice(2, 5))
    cut = args[1]
    assert args[0] is None
    assert torch.equal(kwargs["other"], X[2:5])
    for each in (cut["pair"].y, cut["data"].x, cut["user"]["x"], cut["own"]["x"], cut["list"][0]):
        assert torch.equal(each, X[2:5])
    assert (cut["data"].names, cut["data"].rate) == (["c", "d", "e"], 0.1)
    assert [type(cut[key]) for key in ("pair", "data", "user", "own")] == [Pair, Data, collections.UserDict, Own]
    assert cut["own"]["position"] is batch["own"]["position"]
    assert cut["list"][1:] == [3.0, "word"]
    assert cut["weight"] is batch["weight"]
    assert cut["number"] is batch["number"]
    assert torch.equal(batch["user"]["x"], X)


def test_batches_of_tokenizers_are_cut() -> None:
    transformers = pytest.importorskip("transformers.tokenization_utils_base")
    batch = transformers.BatchEncoding({"input_ids": X, "attention_mask": X})
    (cut,), _ = Batch(lambda batch: None, (batch,), {}).some(slice(0, 2))
    assert type(cut) is type(batch)
    assert torch.equal(cut.input_ids, X[:2])
    assert torch.equal(batch.input_ids, X)


def test_parts_are_as_equal_as_can_be() -> None:
    assert [(its.start, its.stop) for its in parts(7, 3)] == [(0, 3), (3, 5), (5, 7)]


class Trainer:
    def __init__(self) -> None:
        self.model = net()
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    @accelerate(profile="exact", on_oom="split")
    def step(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Takes a step."""
        loss: Tensor = plain(self.model, x * scale, self.optimizer)
        return loss

    @staticmethod
    @accelerate(profile="exact", on_oom="split")
    def of(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        loss: Tensor = plain(model, x, optimizer)
        return loss


def test_methods_stay_methods() -> None:
    trainer, other = Trainer(), Trainer()
    assert (Trainer.step.__doc__, Trainer.step.__name__) == ("Takes a step.", "step")
    assert list(inspect.signature(trainer.step).parameters) == ["x", "scale"]
    with injected_oom(4):
        first, second = trainer.step(X, scale=2.0), other.of(other.model, x=2 * X, optimizer=other.optimizer)
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
def test_in_half_precision_it_is_what_is_accumulated_by_hand(autocast: str) -> None:
    model, options = net(), {"autocast": autocast, "init_scale": 256.0} if autocast == "fp16" else {}
    hand, step = copy.deepcopy(model), accelerate(profile="fast", on_oom="split", **options)(plain)
    optimizer, its = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, hand))
    before = [each.clone() for each in model.parameters()]
    with injected_oom(0), pytest.raises(torch.OutOfMemoryError):
        step(model, X, optimizer)
    assert all(map(torch.equal, model.parameters(), before))
    scaler = scaler_of(step)
    assert scaler is None or (scaler.steps, scaler.skipped_steps, scaler.get_scale()) == (0, 0, 256.0)
    expected = mean(hand(X)).item()
    with injected_oom(5):
        loss = step(model, X, optimizer)
    grads = accelerate(profile="fast", **options)(lambda x: mean(hand(x)).backward())
    for part in (X[:4], X[4:]):
        grads(part)
    for each in hand.parameters():
        assert each.grad is not None
        each.grad /= 2
    its.step()
    for one, other in zip(model.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
    assert loss.item() == pytest.approx(expected, rel=2e-2)
    assert scaler is None or (scaler.steps, scaler.skipped_steps) == (1, 0)


def test_a_scale_that_overflows_is_no_reason_to_refuse() -> None:
    model = net()
    step = accelerate(autocast="fp16", init_scale=2.0**30, on_oom="split")(plain)
    with injected_oom(4) as failed:
        step(model, X, torch.optim.SGD(model.parameters(), lr=0.1))
    assert failed == [8]
    scaler = scaler_of(step)
    assert scaler is not None
    assert (scaler.steps, scaler.skipped_steps) == (0, 1)


def test_what_is_asked_for_around_it_counts() -> None:
    model, around = net(), turbo("exact", autocast="fp16", init_scale=2.0**30)
    step = accelerate(profile=Profile("what is around it"), on_oom="split")(plain)
    with around as active, injected_oom(4) as failed:
        step(model, X, torch.optim.SGD(model.parameters(), lr=0.1))
        assert active.scaler is not None
        assert (active.scaler.steps, active.scaler.skipped_steps) == (0, 1), "and no reason to refuse"
        assert now_in(turbo(Profile("nothing")), "autocast") == "fp16"
        assert now_in(turbo("exact", autocast="none"), "autocast") is None
    assert failed == [8]


class Whole(nn.Module):
    """Has a layer that it does not call, as compiled code does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.layer.weight, self.layer.bias)


def test_memory_runs_out_in_the_backward_of_what_nobody_sees_into() -> None:
    model = Whole()
    with injected_oom(4, at="backward") as failed, pytest.raises(torch.OutOfMemoryError):
        model(torch.randn(8, 3)).mean().backward()
    assert failed == [8]


def test_a_fused_optimizer_whose_states_are_there_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    copy_of = Before.copy
    monkeypatch.setattr(Before, "copy", lambda self: copies.append(1) or copy_of(self))
    for fused, expected in ((True, 1), (False, 3)):
        model, step = net(), accelerate(profile="exact", on_oom="split")(plain)
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        copies.clear()
        for _ in range(3):
            step(model, X, optimizer)
        assert len(copies) == expected


def test_nothing_is_held_when_a_step_is_done() -> None:
    model, step = net(), accelerate(profile="exact", on_oom="split")(plain)
    optimizer = torch.optim.AdamW(model.parameters())
    gc.disable()
    try:
        step(model, X, optimizer)
        with injected_oom(2):
            step(model, X, optimizer)
        assert not [each for each in gc.get_objects() if isinstance(each, Before)]
    finally:
        gc.enable()


def test_a_step_within_a_step_leaves_it_to_the_outer_one() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inner = accelerate(profile="exact", on_oom="split")(plain)

    def outer(model: nn.Module, pair: tuple[Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        loss: Tensor = inner(model, pair[0], optimizer)
        mean(model(pair[0]).detach())  # the whole, again
        return loss

    expected = copy.deepcopy(model)
    plain(expected, X, torch.optim.SGD(expected.parameters(), lr=0.1))
    with injected_oom(4):
        accelerate(profile="exact", on_oom="split")(outer)(model, (X,), optimizer)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_without_a_step_are_added_up() -> None:
    model = net()
    expected = copy.deepcopy(model)
    mean(expected(X)).backward()

    @accelerate(profile="exact", on_oom="split")
    def gradients(x: Tensor) -> None:
        model.zero_grad()
        mean(model(x)).backward()

    with injected_oom(3):
        gradients(X)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_an_evaluation_is_put_together() -> None:
    model = net()

    @accelerate(profile="inference", autocast=None, on_oom="split")
    def evaluate(x: Tensor) -> tuple[Tensor, int]:
        out = model(x)
        return out, int((out > 0).sum())

    with injected_oom(3):
        out, count = evaluate(X)
    assert out.shape == (8, 3)
    assert count == int((out > 0).sum())


# --------------------------------------------------------------------------------------------------- what used it


def test_raise_says_what_used_the_memory_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, step = net(), accelerate(profile="exact", on_oom="raise")(plain)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, X, optimizer)
    with injected_oom(4, at="backward") as failed, pytest.raises(torch.OutOfMemoryError) as found:
        step(model, X, optimizer)
    assert failed == [8]
    assert found.value.__notes__ == [
        "torchturbo: out of memory in backward on cpu: weights 268 B, gradients 108 B, optimizer states 552 B, the "
        "batch 128 B, and activations, which torch does not count on cpu",
        "torchturbo: would have freed memory: autocast='bf16': 324 B of 1.66 KiB at once in a step of Sequential",
        "torchturbo: would have freed memory: on_oom='split': 130 B in two parts, and more in smaller ones",
    ]


def test_where_the_device_counts_it_is_told_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    plain(model, X, optimizer)
    monkeypatch.setattr(words, "_counted", lambda device: (10 * 2**20, 80 * 2**30))
    found = words.used("backward", model.parameters(), [optimizer], [X], copies=4)
    assert found.words() == (
        "out of memory in backward on cpu of 80 GiB: weights 268 B, gradients 268 B, optimizer states 552 B, the batch "
        "128 B, copies of them 4 B, activations and the rest 10 MiB"
    )
    assert found.switches(split=True) == [
        "on_oom='split': 5 MiB in two parts, and more in smaller ones",
        "autocast='bf16': up to 5 MiB of activations",
    ]
    assert found._replace(under_autocast=True).switches(split=False) == []
    assert found._replace(phase="the optimizer's step").switches(split=True) == [
        "fused_optimizer=True: up to 268 B of intermediates"
    ]
    assert isinstance(found, Used)


@pytest.mark.parametrize(
    ("error", "says_so"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_what_says_that_there_is_no_memory(error: BaseException, says_so: bool) -> None:
    assert is_out_of_memory(error) is says_so


def test_torchs_own_error_on_the_cpu_is_one() -> None:
    tried = []

    class Hungry(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            tried.append(len(x))
            if len(x) > 4:
                torch.empty(2**60, dtype=torch.uint8)
            return super().forward(x)

    model = Hungry(4, 3)
    expected = copy.deepcopy(model)
    mean(expected(X[:4])).mul(0.5).backward()
    mean(expected(X[4:])).mul(0.5).backward()
    tried.clear()
    accelerate(profile="exact", on_oom="split")(plain)(model, X, torch.optim.SGD(model.parameters(), lr=0.1))
    assert tried[-2:] == [4, 4]
    assert all(
        torch.equal(one.grad, other.grad) for one, other in zip(model.parameters(), expected.parameters(), strict=True)
    )


# ------------------------------------------------------------------------------------------------- the stand-in


def test_memory_that_runs_out_so_often() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with injected_oom(4, times=1) as failed:
        with pytest.raises(torch.OutOfMemoryError, match="there is room for 4 samples, and these are 8"):
            plain(model, X, optimizer)
        plain(model, X, optimizer)
    assert failed == [8]
    with (
        pytest.raises(ValueError, match="at='front': expected one of 'forward', 'backward', 'optimizer'"),
        injected_oom(
            4,
            at="front",  # type: ignore[arg-type]
        ),
    ):
        pass


@pytest.mark.parametrize("fused", [True, False])
def test_memory_that_runs_out_in_a_step_has_let_it_write(fused: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused, foreach=False if not fused else None)
    before = [each.clone() for each in model.parameters()]
    with injected_oom(4, at="optimizer"), pytest.raises(torch.OutOfMemoryError):
        plain(model, X, optimizer)
    assert not all(map(torch.equal, model.parameters(), before))


def test_a_gradient_penalty_has_leaves_of_its_own_and_is_split() -> None:
    def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        x = x.clone().requires_grad_()
        outputs = model(x)
        (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
        loss = (slope.norm(dim=1) - 1).square().mean() + outputs.square().mean()
        loss.backward()
        optimizer.step()
        return loss

    models = [net(), net()]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    losses = [step(models[0], X, optimizers[0])]
    with injected_oom(4) as failed:
        losses.append(accelerate(profile="exact", on_oom="split")(step)(models[1], X, optimizers[1]))
    assert failed == [8]
    torch.testing.assert_close(losses[1], losses[0].detach())
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)
