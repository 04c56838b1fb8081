"""What counts as different, where it is said to be, and how far apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from torchturbo import Reproduction, check_reproducible
from torchturbo._replay import record
from torchturbo._reproducible.data import Difference
from torchturbo.errors import OptionNameError, OptionValueError, ProfileNameError, ReproducibilityError, TargetError


class Turn:
    """Gives something else each time, and is never put back."""

    __slots__ = ("_values",)

    def __init__(self, *values: Any) -> None:
        self._values = list(values)

    def __call__(self) -> Any:
        return self._values.pop(0)


def checked(function: Callable[..., Any], **options: Any) -> Reproduction:
    return check_reproducible(function, price_seconds=0, advise=False, **options)


def difference(*values: Any) -> Difference | None:
    return checked(Turn(*values)).difference


class Pair(NamedTuple):
    left: Tensor
    right: Any


@dataclass
class Result:
    loss: Tensor


NAN, ZERO = torch.tensor([float("nan"), 1.0]), torch.zeros(2)
OTHER_NAN = torch.tensor([-1, 0x3F800000], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NAN, OTHER_NAN),
        ({"a": [1, (2.0, "x")]}, {"a": [1, (2.0, "x")]}),
        ({"b", "a"}, {"a", "b"}),
        (float("nan"), float("nan")),
        (torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.complex64)),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
        (torch.arange(6.0).view(2, 3).T, torch.arange(6.0).view(2, 3).T.contiguous()),
        ([object(), 1], [object(), 1]),
        (torch.ones(2).to(torch.float8_e5m2), torch.ones(2).to(torch.float8_e5m2)),
        (torch.zeros(2, dtype=torch.uint8).view(torch.uint4), torch.zeros(2, dtype=torch.uint8).view(torch.uint4)),
        (torch.empty(0, 3), torch.empty(0, 3)),
        ([torch.ones(2, device="meta"), 1], [torch.ones(2, device="meta"), 1]),
    ],
)
def test_what_is_the_same(one: Any, other: Any) -> None:
    assert difference(one, other) is None


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (torch.ones(2), torch.tensor([1.0, 1.5]), "returned value, float32 [2], largest difference 0.5"),
        (ZERO, -ZERO, "returned value, float32 [2], largest difference 0 (only the sign of zero differs)"),
        (ZERO, NAN, "returned value, float32 [2] (NaN in one run where the other one has a number)"),
        (ZERO, ZERO.double(), "returned value, float32 [2] (float32 [2] in run 1, float64 [2] in run 2)"),
        (ZERO, torch.zeros(3), "returned value, float32 [2] (float32 [2] in run 1, float32 [3] in run 2)"),
        (ZERO.int(), ZERO.int() + 3, "returned value, int32 [2], largest difference 3"),
        (ZERO.bool(), ZERO == 0, "returned value, bool [2], largest difference 1"),
        (ZERO.to(torch.complex64), ZERO + 1j, "returned value, complex64 [2], largest difference 1"),
        (1.5, 1.6, "returned value (1.5 in run 1, 1.6 in run 2)"),
        (0.0, -0.0, "returned value (0.0 in run 1, -0.0 in run 2)"),
        ([1, 2], [1, 3], "returned value[1] (2 in run 1, 3 in run 2)"),
        ([1], [1, 3], "returned value (list of 1 in run 1, list of 2 in run 2)"),
        (1, ZERO, "returned value (1 in run 1, a tensor in run 2)"),
        ({"a": ZERO}, {"a": ZERO + 1}, "returned value['a'], float32 [2], largest difference 1"),
        (Pair(ZERO, 1), Pair(ZERO, 2), "returned value.right (1 in run 1, 2 in run 2)"),
        (Result(ZERO), Result(ZERO + 2), "returned value.loss, float32 [2], largest difference 2"),
        (
            torch.eye(2).to_sparse(),
            torch.eye(2).to_sparse() * 2,
            "returned value.values, float32 [2], largest difference 1",
        ),
        (
            {"a": 1, "b": 2},
            {"b": 2, "a": 1},
            "order of things at the end (run 1 had the returned value['a'] where run 2 had the returned value['b'])",
        ),
    ],
)
def test_what_differs_is_told(one: Any, other: Any, says: str) -> None:
    assert str(difference(one, other)) == says


def test_an_array_is_compared_by_its_bits() -> None:
    numpy = pytest.importorskip("numpy")
    assert difference(numpy.ones(3), numpy.ones(3)) is None
    assert str(difference(numpy.ones(3), numpy.zeros(3))).startswith("returned value (array float64 (3,) ")


def test_what_is_too_large_to_be_kept_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "ROOM", 7)
    found = difference(torch.ones(2), torch.ones(2) * 2)
    assert str(found) == (
        "returned value, float32 [2] (too much memory to keep it; its sum was 2 in run 1, 4 in run 2)"
    )


class Shaky(nn.Module):
    """Adds what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.noise: Callable[[], float] = float

    def forward(self, x: Tensor, scale: float = 1.0) -> Any:
        return {"scores": self.linear(x) * scale + self.noise()}


def training(model: Shaky) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.5)

    def step() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 2), scale=2.0)["scores"].square().sum().backward()
            optimizer.step()

    return step


@pytest.mark.parametrize("fails_at", [1, 3])
def test_the_call_and_the_step_are_named(fails_at: int) -> None:
    model = Shaky()
    model.noise = Turn(*([0.0] * (3 + fails_at - 1)), 0.25, *([0.0] * 3))
    found = checked(training(model)).difference
    assert found is not None
    assert (found.kind, found.name, found.part) == ("output", "model", "['scores']")
    assert (found.call, found.step, found.shape, found.run) == (fails_at, fails_at, (1, 2), 2)
    assert found.largest == pytest.approx(0.25)
    assert str(found).startswith(f"output['scores'] of model, call {fails_at}, step {fails_at}, float32 [1, 2]")


def test_gradients_and_parameters_are_named() -> None:
    model = Shaky()
    scaled = Turn(*[1.0] * 3, 1.0, 1.5, 1.0)
    handle = model.linear.weight.register_hook(lambda grad: grad * scaled())
    found = checked(training(model)).difference
    handle.remove()
    assert str(found).startswith("gradient of model.linear.weight at step 2, float32 [2, 2], largest difference")

    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    moved = Turn(0.0, 1.0)

    def step() -> None:
        model(torch.ones(1, 2))["scores"].sum().backward()
        with torch.no_grad():
            optimizer.param_groups[0]["lr"] = 0.5 + moved()
        optimizer.step()

    assert str(checked(step).difference).startswith("model.linear.weight after step 1, float32 [2, 2]")


def test_what_is_left_behind_is_compared() -> None:
    left, value = torch.zeros(2), Turn(1.0, 2.0)

    def step() -> None:
        left.fill_(value())

    assert str(checked(step).difference) == "left at the end, float32 [2], largest difference 1"
    assert left.tolist() == [0.0, 0.0]


def test_another_order_of_things_is_told() -> None:
    model, first = Shaky(), Turn(True, False)

    def step() -> None:
        (model if first() else model.linear)(torch.ones(1, 2))

    found = checked(step).difference
    assert str(found) == (
        "order of things at model (run 1 had the input of model, call 1, step 1 where run 2 had the input of "
        "model.linear, call 1, step 1)"
    )


def test_more_of_the_same_is_told() -> None:
    many = Turn(1, 2)

    def step() -> list[float]:
        return [1.0] * many()

    assert checked(step).difference is not None
    model = Shaky()
    fewer = Turn(2, 1)

    def calls() -> None:
        for _ in range(fewer()):
            model(torch.ones(1, 2))

    assert "run 1 had the input of model, call 2, step 1 where run 2 had the returned value" in str(
        checked(calls).difference
    )


def test_what_is_made_in_each_run_has_the_same_name_in_each() -> None:
    def step() -> Any:
        torch.manual_seed(0)
        models = [Shaky(), Shaky()]
        optimizers = [torch.optim.Adam(model.parameters()) for model in models]
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.ones(1, 2))["scores"].sum().backward()
            optimizer.step()
        return models[1].linear.weight

    found = checked(step, runs=3)
    assert found, str(found)
    assert found.modules == ("Shaky", "Shaky#2", "Shaky#2.linear", "Shaky.linear")


def test_strict_raises_what_would_be_told() -> None:
    with pytest.raises(ReproducibilityError, match="not reproducible\nDifferent: 2 runs in this process"):
        checked(Turn(1, 2), strict=True)
    assert checked(Turn(1, 1), strict=True)


def test_what_is_asked_for_wrongly_is_refused_before_anything_runs() -> None:
    never = Turn()
    with pytest.raises(OptionValueError, match="runs=1: expected a number from 2 on"):
        checked(never, runs=1)
    with pytest.raises(OptionNameError):
        checked(never, cudnn_bencmark=True)
    with pytest.raises(ProfileNameError):
        checked(never, profile="fats")


def test_what_does_not_run_when_it_is_called_is_refused() -> None:
    async def later() -> None: ...

    def turns() -> Any:
        yield 1

    for function in (later, turns):
        with pytest.raises(
            TargetError, match=f"{function.__name__} does nothing yet when it is called: check a function"
        ):
            checked(function)
    with pytest.raises(TargetError, match=r"expected a function or its name, as 'train\.py:step', got int"):
        checked(3)  # type: ignore[arg-type]


def test_named_modules_and_arguments_are_put_back() -> None:
    class Slotted:
        __slots__ = ("model",)

    hidden = Slotted()
    hidden.model = model = Shaky()  # type: ignore[attr-defined]
    before = model.linear.weight.clone()

    def step(scale: Tensor, *, more: Tensor) -> None:
        held: Any = hidden
        held.model.linear.weight.data.mul_(scale)
        more.add_(1)

    two, one = torch.tensor(2.0), torch.ones(1)
    assert checked(step, args=(two,), kwargs={"more": one}, modules=[model])
    assert torch.equal(model.linear.weight, before)
    assert one.item() == 1.0


def test_all_of_it_goes_into_json() -> None:
    found = checked(Turn(ZERO, NAN), profile="exact", num_threads=1)
    told = json.loads(found.to_json())
    assert told["difference"]["largest"] == "nan"
    assert told["settings"] == {"profile": "exact", "num_threads": 1}
    assert told["sentence"] == str(found.difference)
    assert repr(found) == "<Reproduction: different in 2 runs>"
    assert not found
