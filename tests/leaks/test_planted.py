"""Each planted leak is found by name, with both values, in the test that has it, and is gone in the next one."""

from __future__ import annotations

import pytest

from tests.laws.look import differences, look
from tests.leaks.conftest import Outcome, Run
from tests.leaks.planted import PLANTS, PREAMBLE, Plant
from torchturbo.errors import LeakError
from torchturbo.testing import assert_restores
from torchturbo.testing._watch import Watch, watch

each = pytest.mark.parametrize("plant", PLANTS, ids=str)


def run_plant(plant: Plant) -> None:
    exec(PREAMBLE + plant.code, {})


@pytest.fixture(scope="module")
def outcome(run_here: Run) -> Outcome:
    tests = [f"def test_{plant.name}():\n    {plant.code}\n\ndef test_after_{plant.name}(): pass\n" for plant in PLANTS]
    return run_here({"test_planted_{}.py": PREAMBLE + "\n".join(tests)}, "--torchturbo-leaks")


@each
def test_the_plugin_names_it(outcome: Outcome, plant: Plant) -> None:
    told = outcome.errors.pop(f"test_{plant.name}")
    assert told.startswith("the test leaked ")
    assert f"\n  {plant.told}" in told
    assert "It is put back for the tests that follow." in told
    assert f"test_{plant.name}" in outcome.passed


def test_the_plugin_names_nothing_else(outcome: Outcome) -> None:
    assert outcome.errors == {}
    assert outcome.code == pytest.ExitCode.TESTS_FAILED
    assert len(outcome.passed) == 2 * len(PLANTS)
    assert outcome.left == ""


@each
def test_assert_restores_names_it(plant: Plant) -> None:
    with pytest.raises(LeakError) as raised, assert_restores():
        run_plant(plant)
    assert f"\n  {plant.told}" in str(raised.value)
    with assert_restores():
        pass


@each
def test_a_watch_that_does_not_look_there_would_miss_it(plant: Plant) -> None:
    blind = Watch(
        thing
        for thing in watch().things
        if plant.name != thing.name and not (thing.name == "environment" and plant.name.isupper())
    )
    with assert_restores(plant.name, "environment", "grad", "fwd_grad", "autocast_nesting"):
        before = blind.look()
        run_plant(plant)
        told = [change.name for change in blind.tell(before)]
    assert plant.name not in told


def test_looking_changes_nothing() -> None:
    before = look()
    for _ in range(3):
        assert not watch(random=True).changed(watch(random=True).look())
    assert differences(before, look()) == ""
