"""What calls of `DataLoader` leave at its default is filled in, and what they name is not, for any call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.laws.violation import Violation
from tests.loading.law import KINDS, arguments_are_filled_in, asked, calls
from torchturbo.hardware import _room
from torchturbo.regions import _arguments


@pytest.fixture(scope="module", autouse=True)
def room() -> Any:
    """Enough, whatever this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_room, "cores", lambda known: known)
        patch.setattr(_room, "memory", lambda: 2**40)
        patch.setattr(_room, "shared_memory", lambda: 2**40)
        patch.delenv("LOCAL_WORLD_SIZE", raising=False)
        yield


def law(examples: int) -> Callable[[], None]:
    """The law, against so many random calls."""

    @settings(max_examples=examples)
    @given(kind=st.sampled_from(KINDS), call=calls, options=asked, positional=st.integers(0, 7))
    def hold(kind: Any, call: dict[str, Any], options: dict[str, Any], positional: int) -> None:
        arguments_are_filled_in(kind, call, options, positional)

    return hold


def test_torchturbo_holds_it() -> None:
    law(400)()


_filled, _of_one = _arguments._filled, _arguments._of_one


def _overriding(wanted: Any, named: dict[str, Any], outcomes: dict[str, str]) -> dict[str, Any]:
    return _filled(wanted, {"dataset": named["dataset"]}, outcomes)


def _equal_to_the_default(wanted: Any, named: dict[str, Any], outcomes: dict[str, str]) -> dict[str, Any]:
    return _filled(wanted, {name: value for name, value in named.items() if value}, outcomes)


def _without_workers(option: Any, wanted: Any, named: dict[str, Any], *, has_workers: bool) -> Any:
    return _of_one(option, wanted, named, has_workers=True)


def _forgetting(wanted: Any, named: dict[str, Any], outcomes: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in _filled(wanted, named, outcomes).items() if name != "pin_memory"}


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "what the call names is overridden": (_arguments, "_filled", _overriding),
    "what equals the default counts as left out": (_arguments, "_filled", _equal_to_the_default),
    "prefetch without workers": (_arguments, "_of_one", _without_workers),
    "an option is forgotten": (_arguments, "_filled", _forgetting),
    "positions are not known": (_arguments.ARGUMENTS, "positional", ("dataset",)),
    "its signature is ours": (_arguments.ARGUMENTS, "_signature", inspect.signature(lambda self, *args: None)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, broken = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Violation):
        law(400)()


def test_what_stays_in_torch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arguments.ASKING, "_place", lambda needed: _arguments.ARGUMENTS.settle(True))
    with pytest.raises(Violation, match="something of ours stays"):
        arguments_are_filled_in(DataLoader, {}, {"num_workers": 1}, 0)
    monkeypatch.undo()
    _arguments.ARGUMENTS.settle(False)
    arguments_are_filled_in(DataLoader, {}, {"num_workers": 1}, 0)
