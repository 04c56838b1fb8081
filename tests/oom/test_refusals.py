"""Steps that cannot be split: each says why in these words, with torch's own error, and has changed nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchturbo import Profile, accelerate, turbo
from torchturbo._oom import step as step_module
from torchturbo._oom.before import Before
from torchturbo._oom.struck import is_with_others
from torchturbo.errors import OptionNameError, OptionValueError, RestoreError, TargetError
from torchturbo.testing import injected_oom

X = torch.arange(32.0).reshape(8, 4).sin()
Loss = Callable[[Tensor], Tensor]


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *more, nn.Tanh(), nn.Linear(8, 3))


def mean(out: Tensor) -> Tensor:
    return out.square().mean()


def step_with(loss_of: Loss) -> Callable[..., Any]:
    def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x))
        loss.backward()
        optimizer.step()
        return loss

    return step


plain = step_with(mean)


def with_closure(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean(model(x))
        loss.backward()
        return loss

    return optimizer.step(closure)  # type: ignore[arg-type]


def twice(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    plain(model, x, optimizer)
    optimizer.step()


def goes_on(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    plain(model, x, optimizer)
    mean(model(x)).backward()


def averages(model: Any, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    plain(model, x, optimizer)
    AVERAGE.mul_(0.9).add_(model[0].weight.detach(), alpha=0.1)


AVERAGE = torch.zeros(8, 4)


def by_hand(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    its = list(model.parameters())
    gradients = torch.autograd.grad(mean(model(x)), its)
    with torch.no_grad():
        for each, gradient in zip(its, gradients, strict=True):
            each.sub_(gradient)


def scales(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu")
    optimizer.zero_grad()
    scaler.scale(mean(model(x))).backward()
    scaler.step(optimizer)
    scaler.update()


def returns_the_largest(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    out = model(x)
    plain(model, x, optimizer)
    return out.detach().max()


def returns_an_object(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    plain(model, x, optimizer)
    return object()


def does_nothing(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        model(x)


def is_for_eight(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    model(x)
    if len(x) != 8:
        raise ValueError("this is for 8")


def with_other(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> None:
    plain(model, batch[0], optimizer)


def of_its_own(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    plain(model, X, optimizer)


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "a sum": (step_with(lambda out: out.square().sum()), (X,), "its loss is no mean over samples"),
    "contrastive": (
        step_with(lambda out: F.cross_entropy(out @ out.T, torch.arange(len(out)))), (X,), "compare samples with each"
    ),
    "a mean over what is not padding": (
        step_with(lambda out: F.cross_entropy(out, torch.tensor([0, -100, -100, -100, -100, 0, 1, 2])[: len(out)])),
        (X,), "or average over what is not padding",
    ),
    "not finite": (step_with(lambda out: mean(out) * float("inf")), (X,), "its gradients are not finite"),
    "a closure": (with_closure, (X,), "AdamW.step is called with a closure"),
    "two steps": (twice, (X,), "its optimizer steps more than once in a call: decorate the function that takes one"),
    "a loop": (goes_on, (X,), "it goes on computing gradients after an optimizer has stepped"),
    "an average of weights": (averages, (X,), "it writes to AVERAGE beside its optimizer's step"),
    "a step by hand": (by_hand, (X,), "it writes to args[0].2.weight and 3 more beside its optimizer's step"),
    "a scaler": (scales, (X,), "a GradScaler of the loop's own do not go together"),
    "the largest": (returns_the_largest, (X,), "that is neither their mean nor their sum"),
    "an object": (returns_an_object, (X,), "it returns a object, which for two halves of some samples is a object"),
    "nothing": (does_nothing, (X,), "it neither leaves gradients by backward() nor returns anything"),
    "one size": (is_for_eight, (X,), "with some samples alone it fails: ValueError: this is for 8"),
    "one sample": (plain, (X[:1],), "its batch has one sample"),
    "two samples": (plain, (X[:2],), "not even two samples fit"),
    "two sizes": (with_other, ((X, X[:3]),), "different first dimensions (batch 8x4 and 3x4)"),
    "no batch": (of_its_own, (), "no batch is among its arguments"),
    "sparse": (with_other, ((X, X.to_sparse()),), "batch holds a sparse_coo tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_says_why_and_has_changed_nothing(name: str) -> None:
    step, args, reason = REFUSED[name]
    check_refused(step, args, net(), reason)


def check_refused(step: Callable[..., Any], args: tuple[Any, ...], model: nn.Module, reason: str) -> None:
    kind = torch.optim.AdamW
    optimizer = kind(model.parameters())
    before = [each.clone() for each in (*model.state_dict().values(), AVERAGE)]
    room = len(args[0]) // 2 if args and isinstance(args[0], Tensor) else 4
    with injected_oom(room), pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="split")(step)(model, *args, optimizer)
    last = found.value.__notes__[-1]
    assert last.startswith("torchturbo: not split, because ")
    assert reason in last
    assert last.endswith("Everything is as it was before the call")
    assert all(map(torch.equal, (*model.state_dict().values(), AVERAGE), before))
    assert not optimizer.state
    assert all(each.grad is None for each in model.parameters())


def test_a_normalization_over_the_batch_is_refused_in_training_alone() -> None:
    check_refused(plain, (X,), net(nn.BatchNorm1d(8)), "it normalizes over the batch (BatchNorm in training)")
    frozen = net(nn.BatchNorm1d(8)).eval()
    with injected_oom(4) as failed:
        accelerate(profile="exact", on_oom="split")(plain)(frozen, X, torch.optim.SGD(frozen.parameters()))
    assert failed == [8]


def _of_classes(weight: Tensor | None = None, **options: Any) -> Callable[..., None]:
    def step(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y, weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return accelerate(profile="exact", on_oom="split", **options)(step)


def test_targets_that_are_ignored_are_seen_where_the_first_batch_had_none() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    step = _of_classes()
    labels, padded = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.tensor([-100, 1, -100, 0, 1, 2, 0, 1])
    with injected_oom(4) as failed:
        step(model, X, labels, optimizer)
        before = {name: each.clone() for name, each in model.state_dict().items()}
        assert failed == [8]
        with pytest.raises(torch.OutOfMemoryError) as found:
            step(model, X, padded, optimizer)
    assert "its loss is no mean over samples" in found.value.__notes__[-1], "as it is verified anew"
    # Nothing is there to verify it with where every second sample is like the others.
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        step(model, X, torch.tensor([0, -100, 2, -100, 1, 2, 0, 1]), optimizer)
    assert (
        "cross_entropy averages over the targets that are not ignored, and there are 0.5 of them for a sample in one "
        "part of this batch and 1 in another, so that it is no mean over samples"
    ) in found.value.__notes__[-1]
    weighed = _of_classes(torch.tensor([1.0, 2.0, 4.0]))
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        weighed(model, X, torch.tensor([0, 1, 0, 1, 0, 2, 0, 2]), optimizer)
    assert "and there are, by their weights, 1.5 of them for a sample in one part" in found.value.__notes__[-1]
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.usefixtures("fresh_compiler")
def test_targets_are_counted_under_compile_too() -> None:
    model = net()
    step, optimizer = _of_classes(compile={"backend": "eager"}), torch.optim.SGD(model.parameters())
    labels = torch.tensor([0, -100, 2, -100, 1, 2, 0, 1])
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        step(model, X, labels, optimizer)
    assert "cross_entropy averages over the targets that are not ignored" in found.value.__notes__[-1]


@pytest.mark.parametrize(
    "model",
    [lambda: net(nn.Dropout(0.5)), lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)],
    ids=["plain", "attention"],
)
def test_dropout_is_no_reason(model: Callable[[], nn.Module]) -> None:
    made = model()
    x = X.reshape(8, 1, 4) if isinstance(made, nn.TransformerEncoderLayer) else X
    with injected_oom(4) as failed:
        accelerate(profile="exact", on_oom="split")(plain)(made, x, torch.optim.SGD(made.parameters()))
    assert failed == [8]


def test_whatever_a_part_raises_everything_is_as_before() -> None:
    calls = 0

    def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        nonlocal calls
        calls += 1
        result: Tensor = plain(model, x, optimizer)
        if torch.equal(x, X[4:]):
            raise kind("here")
        return result

    for kind in (ValueError, KeyboardInterrupt):
        model, calls = net(), 0
        optimizer = torch.optim.AdamW(model.parameters())
        before = {name: each.clone() for name, each in model.state_dict().items()}
        expected = torch.OutOfMemoryError if kind is ValueError else kind
        with injected_oom(4), pytest.raises(expected) as found:
            accelerate(profile="exact", on_oom="split")(step)(model, X, optimizer)
        assert "as it was before the call" in found.value.__notes__[-1]
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
        assert calls == 0


def test_a_loop_that_has_stepped_more_than_once_is_not_put_back() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
        for number in range(4):
            with injected_oom(4 if number == 3 else 8):
                plain(model, x, optimizer)

    before = model.state_dict()["0.weight"].clone()
    with pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="split")(train)(model, X, optimizer)
    assert found.value.__notes__[-1] == (
        "torchturbo: not split, and nothing was put back: optimizers have stepped more than once in this call. "
        "Decorate the function that takes one step, def step(model, batch, optimizer), not the loop around it"
    )
    assert not torch.equal(before, model.state_dict()["0.weight"])


def test_what_was_written_to_before_the_step_cannot_be_put_back_and_is_named() -> None:
    def step(model: Any, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            model[0].weight.clamp_(-0.1, 0.1)
        plain(model, x, optimizer)

    model = net()
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="split")(step)(model, X, torch.optim.SGD(model.parameters()))
    assert found.value.__notes__[-1] == (
        "torchturbo: not split: args[0].0.weight was written to by the step while there was no copy, and could "
        "not be put back; all else is as it was before the call"
    )


def test_other_errors_come_out_as_they_are() -> None:
    def step(x: Tensor) -> None:
        raise ValueError("mine")

    for how in ("split", "raise"):
        with pytest.raises(ValueError, match="mine") as found:
            accelerate(on_oom=how)(step)(X)
        assert not hasattr(found.value, "__notes__")


# ------------------------------------------------------------------------------------------------ what it is put on


def test_it_is_for_functions() -> None:
    async def later() -> None: ...

    targets = {
        "Linear": nn.Linear(2, 2),
        "the class Linear": nn.Linear,
        "property": property(plain),
        "method": [].append,
        "a generator or a coroutine": later,
    }
    for kind, target in targets.items():
        with pytest.raises(
            TargetError, match=r"on_oom='split' is for a function or a method that takes one step"
        ) as no:
            accelerate(target, on_oom="split")  # type: ignore[call-overload]
        assert kind in str(no.value)
        assert "decorate that function where it is defined" in str(no.value)


def test_wrong_words_and_places_are_refused() -> None:
    with pytest.raises(OptionValueError, match="on_oom='slit': expected one of 'split', 'raise', None"):
        accelerate(plain, on_oom="slit")  # type: ignore[call-overload]
    with pytest.raises(OptionNameError) as found:
        turbo(on_oom="split")  # type: ignore[call-arg]
    assert str(found.value) == (
        "on_oom= is for accelerate, around the function that takes one step, "
        "@accelerate(on_oom='split') def step(model, batch, optimizer): a block cannot be run again"
    )
    for options in ({"accumulate": 2}, {"profile": Profile("mine", accumulate=2)}):
        with pytest.raises(TargetError, match="on_oom='split' and accumulate=2 do not go together around one step"):
            accelerate(plain, on_oom="split", **options)  # type: ignore[call-overload]


def test_within_a_block_that_accumulates_it_is_refused_before_it_has_run() -> None:
    ran = []

    def step(x: Tensor) -> None:
        ran.append(random.random())

    with turbo("exact", accumulate=2), pytest.raises(TargetError, match="on_oom='split' and accumulate=2 do not go"):
        accelerate(on_oom="split")(step)(X)
    assert not ran


def test_what_does_not_go_back_is_told_with_torchs_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Before) -> None:
        raise RestoreError("not everything that the function changed could be put back: here")

    monkeypatch.setattr(Before, "put_back", refuses)
    model = net()
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="split")(plain)(model, X, torch.optim.SGD(model.parameters()))
    assert found.value.__notes__[-1] == (
        "torchturbo: not split: not everything that the function changed could be put back: here"
    )
    assert isinstance(found.value.__cause__, RestoreError)


def test_in_several_processes_nothing_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr(torch.distributed, "is_initialized", lambda: True)
            patched.setattr(torch.distributed, "get_world_size", lambda size=size: size)
            assert is_with_others() is (size == 2)
    monkeypatch.setattr(step_module, "is_with_others", lambda: True)
    check_refused(plain, (X,), net(), "other processes take part in the step, which would wait for ever")


def test_a_scheduler_that_is_told_the_loss_of_a_part_is_refused() -> None:
    def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer, scheduler: Any) -> float:
        loss = plain(model, x, optimizer).item()
        scheduler.step(loss)
        return loss

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    before = copy.deepcopy(scheduler.state_dict())
    with injected_oom(4), pytest.raises(torch.OutOfMemoryError) as found:
        accelerate(profile="exact", on_oom="split")(step)(model, X, optimizer, scheduler)
    assert "ReduceLROnPlateau.step is called with a number of one part" in found.value.__notes__[-1]
    assert scheduler.state_dict() == before
