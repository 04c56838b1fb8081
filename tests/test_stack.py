"""The stack, by example: what each sentence of its documentation says. In general it is in tests/laws."""

from __future__ import annotations

from typing import Any

import pytest

from tests.laws.layers import Ours
from tests.laws.world import World, replaced
from torchturbo._stack import Layer, Stack
from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import always, keep


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def layers() -> Ours:
    return Ours()


def test_a_layer_puts_its_values_in_force_and_takes_them_out(world: World, layers: Ours) -> None:
    number, pair = world.cells["number"], world.cells["pair"]
    layer = layers.open([(number, always(1)), (pair, replaced({1: 3}))])
    assert (world.values["number"], world.values["pair"]) == (1, (0, 3))
    assert layers.stack.layers == [layer]
    layers.close(layer)
    assert (world.values["number"], world.values["pair"]) == (0, (0, 0))
    assert layers.stack.layers == []


def test_one_that_leaves_from_beneath_writes_nothing_that_newer_ones_hold(world: World, layers: Ours) -> None:
    number = world.cells["number"]
    lower, upper = layers.open([(number, always(1))]), layers.open([(number, always(2))])
    world.visited.clear()
    layers.close(lower)
    assert world.visited == []
    layers.close(upper)
    assert world.values["number"] == 0


def test_one_that_leaves_from_beneath_puts_back_what_nobody_else_holds(world: World, layers: Ours) -> None:
    number, flag = world.cells["number"], world.cells["flag"]
    lower, upper = layers.open([(number, always(1)), (flag, always(True))]), layers.open([(number, always(2))])
    layers.close(lower)
    assert (world.values["number"], world.values["flag"]) == (2, False)
    layers.close(upper)


def test_a_value_that_depends_on_what_is_beneath_is_worked_out_anew(world: World, layers: Ours) -> None:
    number = world.cells["number"]
    opened = [layers.open([(number, lambda beneath: beneath + 10)]) for _ in range(3)]
    assert world.values["number"] == 30
    for layer, left in zip(opened, (20, 10, 0), strict=True):
        layers.close(layer)
        assert world.values["number"] == left


def test_what_somebody_else_wrote_between_two_layers_comes_back_when_the_upper_one_leaves(
    world: World, layers: Ours
) -> None:
    number = world.cells["number"]
    lower = layers.open([(number, always(1))])
    world.foreign("number", {0: 77})
    upper = layers.open([(number, always(2))])
    layers.close(lower)
    layers.close(upper)
    assert world.values["number"] == 77


def test_what_somebody_else_wrote_over_the_newest_layer_goes_with_it(world: World, layers: Ours) -> None:
    layer = layers.open([(world.cells["pair"], always((1, 2)))])
    world.foreign("pair", {0: 77})
    layers.close(layer)
    assert world.values["pair"] == (0, 0)


def test_a_cell_that_is_kept_is_put_back_whoever_changed_it(world: World, layers: Ours) -> None:
    layer = layers.open([(world.cells["number"], keep)])
    assert not world.visited
    world.foreign("number", {0: 77})
    layers.close(layer)
    assert world.values["number"] == 0


def test_nothing_is_written_where_nothing_changes(world: World, layers: Ours) -> None:
    layer = layers.open([(world.cells["number"], always(0)), (world.cells["pair"], always((0, 0)))])
    assert not world.visited
    layers.close(layer)


def test_a_threads_cells_are_its_own(world: World, layers: Ours) -> None:
    own = world.cells["own"]
    first = layers.open([(own, always(1))], 0)
    world.thread = 1
    second = layers.open([(own, always(2))], 1)
    world.thread = 0
    layers.close(first, 0)
    assert (world.values["own", 0], world.values["own", 1]) == (0, 2)
    world.thread = 1
    layers.close(second, 1)
    assert (world.values["own", 0], world.values["own", 1]) == (0, 0)


def test_a_threads_part_waits_for_its_thread(world: World, layers: Ours) -> None:
    layer = layers.open([(world.cells["number"], always(1)), (world.cells["own"], always(1))], 0)
    world.thread = 1
    layers.close_part(layer, 0, "process")
    assert (world.values["number"], world.values["own", 0], world.values["own", 1]) == (0, 1, 0)
    world.thread = 0
    layers.close_part(layer, 0, "thread")
    assert (world.values["own", 0], layers.stack.layers) == (0, [])


@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt("planted")])
def test_an_entry_that_fails_half_way_leaves_no_trace(world: World, layers: Ours, error: BaseException) -> None:
    def fail(beneath: Any) -> Any:
        raise error

    with pytest.raises(type(error)) as seen:
        layers.open([(world.cells["number"], always(1)), (world.cells["pair"], fail)])
    assert seen.value is error
    assert (world.values["number"], layers.stack.layers) == (0, [])


def test_what_torch_refuses_to_put_back_is_named_and_everything_else_is_back(world: World, layers: Ours) -> None:
    def write(raw: Any, over: Any) -> None:
        if raw == 0:
            raise RuntimeError("not again")
        world.values["number"] = raw

    stubborn = Cell("a stubborn cell", "process", world.cells["number"].read, write)
    layer = layers.open([(world.cells["flag"], always(True)), (stubborn, always(1)), (world.cells["own"], always(1))])
    with pytest.raises(RestoreError, match=r"^torch refused to put back a stubborn cell: not again$") as seen:
        layers.close(layer)
    assert isinstance(seen.value.__cause__, RuntimeError)
    assert (world.values["flag"], world.values["number"], world.values["own", 0]) == (False, 1, 0)
    assert layers.stack.layers == []


def test_an_entry_that_cannot_be_taken_back_says_why_it_failed(world: World, layers: Ours) -> None:
    def write(raw: Any, over: Any) -> None:
        raise RuntimeError(f"not to {raw}")

    stubborn = Cell("a stubborn cell", "process", world.cells["number"].read, write)
    with pytest.raises(Exception) as seen:  # noqa: PT011 - which of the two it is, is what the next lines are about
        layers.open([(world.cells["flag"], always(True)), (stubborn, always(1))])
    chain = [str(seen.value), str(seen.value.__context__), str(seen.value.__cause__)]
    assert any("not to 1" in said for said in chain)
    assert world.values["flag"] is False


@pytest.mark.parametrize("first_out", ["lower", "upper"])
def test_cells_that_are_put_in_force_at_once_leave_by_themselves(world: World, layers: Ours, first_out: str) -> None:
    number, own = world.cells["number"], world.cells["own"]

    def write(raw: Any, over: Any) -> None:
        for cell, part, was in zip((number, own), raw, over, strict=True):
            cell.write(part, was)

    both = Cell("both", "thread", lambda: (number.read(), own.read()), write, parts=(number, own))
    lower, upper = layers.open([(both, always((1, 1)))]), layers.open([(own, always(2))])
    assert (world.values["number"], world.values["own", 0]) == (1, 2)
    last = {"lower": upper, "upper": lower}[first_out]
    layers.close({"lower": lower, "upper": upper}[first_out])
    assert (world.values["number"], world.values["own", 0]) == ((0, 2) if last is upper else (1, 1))
    layers.close(last)
    assert (world.values["number"], world.values["own", 0]) == (0, 0)


def test_the_stack_itself_is_what_the_laws_drive() -> None:
    stack = Stack()
    own: list[Layer] = []
    world = World()
    layer = Layer(((world.cells["number"], always(1)),))
    stack.push(layer, own)
    assert (stack.layers, own) == ([layer], [layer])
    stack.pop(layer, own)
    assert (stack.layers, own, world.values["number"]) == ([], [], 0)
