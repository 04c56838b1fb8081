"""A run in float64 is, to float64's own rounding, the run of a model made double by hand, with the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchturbo import benchmark
from torchturbo._replay.float64 import Float64, in_float64
from torchturbo._replay.here import Here
from torchturbo._replay.record import Record

Step = Callable[[], float]


class Net(nn.Module):
    """One of each: convolution, norms, a recurrent net, attention, and dropout everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.batch_norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm(36)
        self.lstm = nn.LSTM(36, 8, 2, dropout=0.3, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        hidden, _ = self.lstm(self.layer_norm(self.batch_norm(self.conv(x)).flatten(2)))
        return self.out(F.dropout(self.attention(hidden).mean(1), 0.2, self.training))


def _training(double: bool, scaled: bool = False, **options: Any) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    model, images, labels = Net(), torch.randn(6, 1, 8, 8), torch.randint(0, 5, (6,))
    if double:
        model, images = model.double(), images.double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return model, step


def _wide(step: Callable[[], Any]) -> tuple[Record, Float64]:
    here = Here(step)
    here.find(_nothing())
    modes: list[Float64] = []

    @contextmanager
    def block() -> Iterator[None]:
        with in_float64(here.keeper) as mode:
            modes.append(mode)
            yield

    return here.watched(block()), modes[0]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _last(record: Record, kind: str) -> dict[str, Tensor]:
    return {
        event.name.partition(".")[2]: event.value
        for event in record.events
        if event.kind == kind and event.value is not None
    }


@pytest.mark.parametrize(("options", "scaled"), [({}, False), ({"fused": True}, False), ({}, True)])
def test_it_is_what_a_model_made_double_computes(options: dict[str, Any], scaled: bool) -> None:
    model, step = _training(double=False, scaled=scaled, **options)
    torch.manual_seed(5)
    record, mode = _wide(step)
    found = _last(record, "parameter")
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())
    assert mode.left == set()
    by_hand, its_step = _training(double=True, **options)
    torch.manual_seed(5)
    loss = its_step()
    assert [float(event.digest) for event in record.events if event.kind == "returned"] == [pytest.approx(loss, 1e-14)]
    assert found.keys() == dict(by_hand.named_parameters()).keys()
    for name, parameter in by_hand.named_parameters():
        assert found[name].dtype is torch.float64
        # AdamW's first step is the sign of the gradient: those that are zero but for rounding have any.
        close = (found[name] - parameter).abs() < 1e-12
        assert bool((close | (parameter.grad.abs() < 1e-14)).all()), name  # type: ignore[union-attr]


def test_tensors_that_nothing_knows_are_float64_where_they_are_used() -> None:
    hidden = (torch.full((3,), 1 / 3) for _ in range(9))

    def step() -> Any:
        leaf = next(hidden).requires_grad_()
        total = torch.zeros(()) + torch.tensor(0.1)
        total += (leaf * leaf).sum()
        total.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            leaf.sub_(leaf.grad / 2)
        return [total.detach(), leaf.detach()]

    third, tenth = (float(torch.tensor(each)) for each in (1 / 3, 0.1))
    record, _ = _wide(step)
    total, leaf = (event.value for event in record.events if event.kind == "returned" and event.value is not None)
    assert total.item() == pytest.approx(tenth + 3 * third**2, 1e-15)
    assert leaf.tolist() == [0.0] * 3


def test_draws_are_those_of_float32() -> None:
    def step() -> list[Tensor]:
        probabilities = torch.full((5,), 0.4)
        return [
            torch.rand(3), torch.randn(3), torch.empty(3).uniform_(), torch.rand_like(torch.ones(3)).exp().log(),
            torch.normal(torch.zeros(3), 1.0), torch.bernoulli(probabilities), torch.multinomial(probabilities, 2),
            F.dropout(torch.ones(8), 0.5), torch.native_dropout(torch.ones(8), 0.5, True)[0],
        ]  # fmt: skip

    torch.manual_seed(3)
    wide = _wide(step)[0]
    plain = Here(step).watched(_nothing())
    for one, other in zip(wide.events, plain.events, strict=True):
        if one.value is not None and other.value is not None:
            assert torch.allclose(one.value.double(), other.value.double(), rtol=1e-6, atol=1e-7), one.place


def test_what_torch_has_not_in_float64_is_noted() -> None:
    @torch.library.custom_op("torchturbo_tests::halved", mutates_args=())
    def halved(x: Tensor) -> Tensor:
        if x.dtype is torch.float64:
            raise RuntimeError("\"halved\" not implemented for 'Double'")
        return x / 2

    one = torch.ones(1)
    _, mode = _wide(lambda: halved(one / 3) * 3)
    assert mode.left == {"halved"}
    found = benchmark(lambda: halved(one / 3), "exact", reference="float64", budget=0.05)
    assert any("computed halved in float32, or with other random numbers" in note for note in found.notes)


def test_memory_that_is_shared_goes_on_being_shared() -> None:
    whole = torch.zeros(4)
    half = whole[:2]

    def step() -> Tensor:
        half.add_(1)
        return whole.sum()

    assert _last(_wide(step)[0], "returned")[""].item() == 2.0
    assert (whole.dtype, half.data_ptr(), whole.tolist()) == (torch.float32, whole.data_ptr(), [0.0] * 4)


def test_what_cannot_be_computed_in_it_says_what_to_ask_for() -> None:
    def step() -> None:
        assert torch.ones(1).exp().dtype is torch.float32

    with pytest.raises(AssertionError) as raised:
        benchmark(step, "exact", reference="float64", budget=0.05)
    assert raised.value.__notes__ == [
        'torchturbo: raised while the step ran in float64 for reference="float64"; reference="exact" compares with the '
        "step in float32"
    ]


def test_float32_is_off_by_what_float32_rounds_to() -> None:
    _, step = _training(double=False)
    found = benchmark(step, "exact", reference="float64", budget=0.05)
    drift = found["exact"].drift
    assert drift is not None
    assert drift.gradients is not None
    assert 1e-9 < drift.gradients < 1e-4
    assert found.noise is not None
    assert found.noise.largest is not None
    assert found.noise.largest < 1e-10
