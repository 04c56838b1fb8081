"""What is no tensor and no container, returned or left: it is looked into, or said not to have been compared."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from torchturbo import Reproduction, check_reproducible
from torchturbo.errors import ReproducibilityError, TargetError

CHANCE = np.random.default_rng(0)


class Turn:
    """Another number each time; never put back."""

    __slots__ = ("_number",)

    def __init__(self) -> None:
        self._number = 0

    def __call__(self) -> int:
        self._number += 1
        return self._number

    def tensor(self) -> Tensor:
        """The number, as a tensor."""
        return torch.tensor(float(self()))


def checked(function: Callable[..., Any], **options: Any) -> Reproduction:
    return check_reproducible(function, price_seconds=0, advise=False, **options)


class Box:
    def __init__(self, held: Any) -> None:
        self.held = held


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Ring:
    """Holds itself."""

    def __init__(self, held: Any) -> None:
        self.ring, self.held = self, held


def linear(value: Tensor) -> nn.Linear:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.copy_(value)
    return model


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (linear, ".bias"),
        (lambda value: torch.optim.SGD(linear(value).parameters(), 0.1), ".param_groups[0]['params'][1]"),
        (lambda value: torch.optim.SGD(linear(torch.ones(1)).parameters(), float(value)), ".param_groups[0]['lr']"),
        (Box, ".held"),
        (Slotted, ".held"),
        (Ring, ".held"),
        (lambda value: (1, {"box": Box([value])}), "[1]['box'].held[0]"),
        (lambda value: SimpleNamespace(held=value), ".held"),
        (lambda value: torch.distributions.Normal(value, 1.0), ".loc"),
        (lambda value: deque([value]), "[0]"),
        (lambda value: ValueError(value), ".args[0]"),
        (lambda value: Decimal(int(value)), ""),
        (lambda value: Fraction(int(value), 7), ""),
        (lambda value: range(int(value)), ""),
        (lambda value: np.array([int(value), None], dtype=object), "[0]"),
        (lambda value: torch.Generator().manual_seed(int(value)), ".get_state()"),
    ],
    ids=[str(number) for number in range(16)],
)
def test_what_an_object_holds_is_compared(make: Callable[[Tensor], Any], part: str) -> None:
    turn = Turn()
    found = checked(lambda: make(turn.tensor()))
    assert found.difference is not None
    assert (found.difference.kind, found.difference.part) == ("returned", part)
    alike = checked(lambda: [make(torch.ones(())), 1])
    assert alike, str(alike)
    assert alike.notes == ()


def test_what_nobody_can_look_into_is_told() -> None:
    found = checked(lambda: [1, lambda: 2, iter([3])])
    assert found.notes == (
        "returned value[1] (a function) cannot be looked into, and was not compared",
        "returned value[2] (a list_iterator) cannot be looked into, and was not compared",
    )
    assert checked(lambda: [1, *[iter([n]) for n in range(7)]]).notes[-1] == "2 more such things were not compared"
    assert "No tensor, and 1 other values of a run were compared" in str(checked(lambda: 1))


@pytest.mark.parametrize("returned", [None, object(), [], [None]])
def test_where_nothing_was_compared_nothing_is_called_identical(returned: Any) -> None:
    with pytest.raises(TargetError, match=r"nothing of the function could be compared.*Return what is to be compared"):
        checked(lambda: returned)


class Awaited:
    async def __call__(self) -> int:
        return 1


class Yields:
    def __call__(self) -> Any:
        yield 1


async def awaited() -> int:
    return 1


@pytest.mark.parametrize("function", [Awaited(), Yields(), lambda: awaited(), lambda: (n for n in "ab")], ids="abcd")
def test_what_has_not_run_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(TargetError, match=r"(does nothing yet when it is called|has not run).*lambda: asyncio\.run"):
        checked(function)
    assert checked(lambda: asyncio.run(awaited()))


def test_an_exit_is_no_end() -> None:
    with pytest.raises(ReproducibilityError, match=r"^the function ended by sys\.exit\(0\), so that there is nothing"):
        checked(lambda: sys.exit(0))


LEFT: Any = None


def test_tensors_and_arrays_that_are_left_anywhere_are_compared() -> None:
    turn, box, names, array, listed = Turn(), Box(None), dict[str, Any](), np.zeros(2), list[Any]()

    def variable() -> None:
        global LEFT
        LEFT = turn.tensor()

    def in_place() -> None:
        array[1] = turn()

    for leave, name in (
        (lambda: setattr(box, "held", turn.tensor()), "box.held"),
        (lambda: names.update(x=[turn.tensor()]), "names['x'][0]"),
        (lambda: listed.append(turn.tensor()), "listed[0]"),
        (variable, "LEFT"),
        (in_place, "array"),
    ):
        found = checked(leave)
        assert found.difference is not None
        assert (found.difference.kind, found.difference.name) == ("end", name)
    assert (box.held, names, array.tolist(), listed, LEFT) == (None, {}, [0.0, 0.0], [], None)


class Drawn(Dataset[Tensor]):
    """Draws from a generator of its module, which only a method names."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([CHANCE.random()])


class Counting(nn.Module):
    """Counts in its class."""

    calls = 0
    seen: list[int] = []  # noqa: RUF012 - shared by all, as users write it
    total = torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        Counting.calls += 1
        self.seen.append(1)
        self.total.add_(1)
        return x * Counting.calls * len(self.seen) + self.total


def test_what_only_methods_classes_and_functions_hold_is_put_back() -> None:
    loader, before = DataLoader(Drawn(), batch_size=2), CHANCE.bit_generator.state
    assert checked(lambda: torch.cat(list(loader)))
    assert before == CHANCE.bit_generator.state

    model = Counting()
    assert checked(lambda: model(torch.ones(2)))
    assert checked(lambda: Counting()(torch.ones(2)))
    assert (Counting.calls, Counting.seen, Counting.total.tolist()) == (0, [], [0.0, 0.0])

    def counted() -> int:
        vars(counted)["calls"] = vars(counted).get("calls", 0) + 1
        number: int = vars(counted)["calls"]
        return number

    assert checked(counted)
    assert vars(counted) == {}
