"""What a declaration is made of: values, cells, edits, and how a layer's ground moves."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from torchturbo.errors import OptionValueError
from torchturbo.settings import _base
from torchturbo.settings._base import BOOL, Cell, Setting, Values, cell, choice, moved, number, simple
from torchturbo.settings._edits import always, keep
from torchturbo.testing import MACHINES


class Pair(NamedTuple):
    left: int
    right: int


# ------------------------------------------------------------------------------------------------------------ values


def test_a_choice_is_taken_as_it_is() -> None:
    taken = choice("high", None, True, 2).parse
    assert [taken("x", value) for value in ("high", None, True, 2)] == ["high", None, True, 2]


@pytest.mark.parametrize("value", [1, 0, 1.0, "True", None])
def test_equal_is_not_enough(value: object) -> None:
    with pytest.raises(OptionValueError):
        BOOL.parse("x", value)


def test_another_spelling_stands_for_a_choice() -> None:
    values = Values(("a", "b"), {"A": "a", torch.float32: "b", 1: "a"})
    assert [values.parse("x", value) for value in ("A", torch.float32, 1)] == ["a", "b", "a"]
    with pytest.raises(OptionValueError):
        values.parse("x", True)


def test_keywords_of_choice_are_other_spellings() -> None:
    assert choice("a", "b", first="a").parse("x", "first") == "a"


@pytest.mark.parametrize(
    ("values", "value", "message"),
    [
        (BOOL, 2, "x=2: expected one of True, False"),
        (choice("high", "highest"), "hihg", "x='hihg': expected one of 'high', 'highest'; did you mean 'high'"),
        (choice("high", "highest"), "zzz", "x='zzz': expected one of 'high', 'highest'"),
        (number(at_least=1), 0, "x=0: expected at least 1"),
        (number(at_least=1), True, "x=True: expected an int"),
        (number(at_least=1), "1", "x='1': expected an int"),
        (Values(kind=str), 5, "x=5: expected a str"),
        (Values(kind=str, rule=lambda text: "too short" if len(text) < 3 else None), "ab", "x='ab': too short"),
    ],
)
def test_a_refusal_says_what_was_asked_and_what_to_write(values: Values, value: object, message: str) -> None:
    with pytest.raises(OptionValueError) as refused:
        values.parse("x", value)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "annotation"),
    [
        (BOOL, "bool"),
        (choice(False, True), "bool"),
        (number(at_least=0), "int"),
        (Values(kind=str), "str"),
        (choice("a", "b"), 'Literal["a", "b"]'),
        (choice("a", None), 'Literal["a"] | None'),
        (choice(False, "warn", True), 'Literal[False, "warn", True]'),
    ],
)
def test_values_are_a_type(values: Values, annotation: str) -> None:
    assert values.annotation == annotation


# ------------------------------------------------------------------------------------------------------------- cells


def test_a_cell_of_a_getter_and_a_setter(monkeypatch: pytest.MonkeyPatch) -> None:
    state = [False]
    monkeypatch.setattr(torch._C, "_get_made_up", lambda: state[0], raising=False)
    monkeypatch.setattr(torch._C, "_set_made_up", lambda on: state.__setitem__(0, on), raising=False)
    made = cell("_get_made_up", "_set_made_up", "thread")
    assert isinstance(made, Cell)
    assert (made.name, made.scope) == ("_get_made_up", "thread")
    made.write(True, False)
    assert made.read() is True


@pytest.mark.parametrize(
    ("getter", "setter"), [("_get_nothing", "_set_warnAlways"), ("_get_warnAlways", "_set_nothing")]
)
def test_there_is_no_cell_where_this_torch_has_none(getter: str, setter: str) -> None:
    assert cell(getter, setter) is None


def test_edits() -> None:
    assert always(3)(5) == 3
    assert keep(5) == 5


@pytest.mark.parametrize(
    ("found", "was", "now", "expected"),
    [
        (1, 1, 2, 2),
        (5, 1, 2, 5),
        (None, None, ":16:8", ":16:8"),
        ((1, 1), (1, 1), (2, 3), (2, 3)),
        ((1, 5), (1, 1), (2, 3), (2, 5)),
        (Pair(1, 5), Pair(1, 1), Pair(2, 3), Pair(2, 5)),
        ((), (), (), ()),
    ],
)
def test_what_a_layer_stands_on_moves_but_for_what_others_wrote(
    found: object, was: object, now: object, expected: object
) -> None:
    result = moved(found, was, now)
    assert result == expected
    assert type(result) is type(expected)


def test_tuples_of_unlike_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        moved((1, 2), (1,), (1,))


# ---------------------------------------------------------------------------------------------------------- settings


def test_a_simple_setting_is_one_cell() -> None:
    at = Cell("made up", "process", lambda: 1, lambda raw, over: None)
    setting = simple(
        at, help="Made up.", values=choice("a", "b"), raw={"a": 1, "b": 2}.get, show=lambda raw: "ab"[raw - 1]
    )
    assert setting.now() == "a"
    assert setting.scope == "process"
    ((where, edit),) = setting.edits("b", MACHINES["H100"])
    assert (where, edit(1)) == (at, 2)
    assert setting.refusal(MACHINES["cpu"], "a") is None
    assert setting.resolve("a", MACHINES["cpu"]) == "a"


def test_a_setting_that_this_torch_lacks_says_why() -> None:
    setting = simple(None, help="Not here.")
    assert setting.cells == ()
    assert setting.now() is None
    assert setting.refusal(MACHINES["H100"], True) == "this torch build does not have it"


def test_one_cell_of_the_process_makes_a_setting_the_processs() -> None:
    process, thread = (Cell(scope, scope, lambda: 1, lambda raw, over: None) for scope in ("process", "thread"))

    def of(*cells: Cell) -> str:
        return Setting("", BOOL, cells, lambda value, hardware: (), lambda *raws: raws).scope

    assert (of(process), of(thread), of(thread, process)) == ("process", "thread", "process")


def test_the_version_of_torch_is_two_numbers() -> None:
    assert tuple(map(int, torch.__version__.split(".")[:2])) == _base.TORCH
