"""The witness itself: it sees planted leaks, catches faulty blocks, and raises no false alarm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import matrix
from tests.witness import cases, getters, mutants, setters
from tests.witness.plants import plants
from tests.witness.verdict import shrink

ROOT = Path(__file__).parent.parent


def run(*module: str) -> str:
    """The output of a module in a process of its own, whose torch nobody has touched."""
    done = subprocess.run([sys.executable, "-m", *module], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the witness says of every plant and every mutant."""
    report: dict[str, Any] = json.loads(run("tests.witness.plants"))
    return report


@pytest.mark.matrix
@pytest.mark.parametrize("plant", sorted(plants()))
def test_a_planted_leak_is_seen(seen: dict[str, Any], plant: str) -> None:
    ways = seen["plants"][plant]
    assert "crash" not in ways, ways
    assert ways["getters"] or ways["memory"] or ways["probing"]


@pytest.mark.matrix
@pytest.mark.parametrize("plant", sorted(name for name, plant in plants().items() if plant.hidden))
def test_what_no_getter_shows_is_seen_by_probing_and_in_memory(seen: dict[str, Any], plant: str) -> None:
    ways = seen["plants"][plant]
    assert ways["getters"] == []
    assert ways["probing"]
    assert ways["memory"] or not seen["memory"]


@pytest.mark.matrix
def test_every_getter_that_has_a_setter_is_read_or_left_out_for_a_reason(seen: dict[str, Any]) -> None:
    paired = {name for name in dir(torch._C) if name.replace("_get_", "_set_", 1) in dir(torch._C) and "_get_" in name}
    assert len(paired) > 20
    wants_arguments = {
        name
        for name in paired
        if getters.WANTS_ARGUMENTS.search(getters.read_one(getattr(torch._C, name)))
        or getters.NOTHING_HERE.search(getters.read_one(getattr(torch._C, name)))
    }
    missed = {
        name for name in paired - wants_arguments if name not in seen["getters"] and not getters.reason_to_exclude(name)
    }
    assert missed == set()


@pytest.mark.matrix
@pytest.mark.parametrize("mutant", [mutant.__name__ for mutant in mutants.MUTANTS])
def test_a_mutant_is_caught(seen: dict[str, Any], mutant: str) -> None:
    assert seen["mutants"][mutant]


@pytest.mark.matrix
def test_a_block_that_does_nothing_raises_no_alarm(seen: dict[str, Any]) -> None:
    assert seen["idle"] == ""


def test_a_case_is_the_same_each_time_it_is_made() -> None:
    table = setters.table()
    assert cases.make(17, table) == cases.make(17, table)
    assert cases.make(17, table) != cases.make(18, table)


def test_shrinking_keeps_only_what_the_failure_needs() -> None:
    def fails(case: cases.Case) -> bool:
        entered = sum(step.kind == "enter" for step in case.blocks)
        return entered >= 2 and any("autocast" in layer.options for layer in case.layers)

    table = setters.table()
    large = next(case for case in (cases.make(seed, table) for seed in range(1000)) if fails(case))
    small = shrink(large, fails)
    assert [step.kind for step in small.blocks] == ["enter", "enter"]
    assert small.history == ()
    assert sum(len(layer.options) for layer in small.layers) == 1


def test_the_run_says_how_to_see_a_failure_again() -> None:
    subject = "tests.witness.mutants:Swallows"
    said = run("tests.matrix", "--subject", subject, "--cases", "20", "--jobs", "1", "--stop")
    (again,) = [line for line in said.splitlines() if "again:" in line]
    seed = again.split()[-1]
    assert "swallowed" in run("tests.matrix", "--subject", subject, "--only", seed)
    assert matrix.with_compiler(int(seed)) is (int(seed) % 5 == 0)
