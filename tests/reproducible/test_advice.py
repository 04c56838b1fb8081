"""Advice: which settings are tried, in which order, and what is said where none helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from torchturbo._replay.record import Event, Record
from torchturbo._replay.settings import Settings
from torchturbo._reproducible.advice import advise, candidates
from torchturbo._reproducible.compare import first_difference
from torchturbo._reproducible.data import Difference

WRONG = Difference(2, "output", "model", "", 1, 1, "float32", (2,), 0.5, (), "")


def record(*digests: str) -> Record:
    events = [
        Event("output", "model", "", call, 1, "float32", (2,), its, None, 1.0) for call, its in enumerate(digests, 1)
    ]
    return Record(events, [(0, {})])


class Runs:
    """A function that is the same in each run under some settings, and raises under others."""

    def __init__(self, helps: Callable[[Settings], bool], fresh: bool = False, refuses: str = "") -> None:
        self.helps, self.fresh, self.refuses = helps, fresh, refuses
        self.under: list[Settings] = []

    def record(self, settings: Settings, note: str = "") -> Record:
        self.under.append(dict(settings))
        if self.refuses and self.refuses in settings:
            raise RuntimeError("no such kernel\nfor it")
        return record("same" if self.helps(settings) else str(len(self.under)))


def advice(runs: Runs, found: Difference = WRONG, **settings: Any) -> list[str]:
    return list(advise(runs, settings, found, times=3, hash_seed_is_set=False, tell=lambda _: None))


def test_seeds_are_tried_in_fresh_processes_only_and_first() -> None:
    here = [*candidates({}, False, False)]
    assert here[0] == {"deterministic": True}
    assert here[-3:] == [
        {"profile": "reproducible"},
        {"num_threads": 1},
        {"profile": "reproducible", "num_threads": 1},
    ]
    seeds = [{"PYTHONHASHSEED": "0"}, {"seed": 0}, {"seed": 0, "PYTHONHASHSEED": "0"}]
    fresh = [*candidates({}, True, False)]
    assert fresh[: 3 + len(here)] == [*seeds, *here]
    assert fresh[3 + len(here) :] == [{"profile": "reproducible", **seeds[2], **more} for more in ({}, here[-2])]
    for each in candidates({"seed": 3, "num_threads": 1}, True, True):
        assert not {"seed", "PYTHONHASHSEED", "num_threads"} & set(each), "what is set is left as it is"


def test_what_is_in_force_is_not_tried_again() -> None:
    left = [*candidates({"profile": "reproducible"}, False, False)]
    assert {"num_threads": 1} in left
    assert all("profile" not in each for each in left)


def test_the_first_that_helps_is_the_last_that_is_tried() -> None:
    runs = Runs(lambda settings: settings.get("seed") == 0, fresh=True)
    assert advice(runs, profile="exact") == [
        "It is identical in 3 runs under seed=0; of what was tried, this is the smallest change."
    ]
    assert runs.under[-3:] == [{"profile": "exact", "seed": 0}] * 3
    assert len(runs.under) == 2 + 3, "two runs are enough to see that something does not help"


def test_what_raises_is_told_once() -> None:
    told = advice(Runs(lambda _: False, refuses="num_threads"))
    assert told[0] == "No setting that was tried makes it identical."
    assert told[-1] == "Under num_threads=1 it raised: no such kernel"
    assert "".join(told).count("no such kernel") == 1


@pytest.mark.parametrize(
    ("kind", "streams", "fresh", "says"),
    [
        ("output", (), False, "What goes in is the same and what comes out is not"),
        ("input", (), False, "What goes into the first module that differs was made outside of all modules"),
        ("start", (), True, "The weights differ before anything was computed"),
        ("order", (), False, "The runs did not do the same things"),
        ("input", ("A", "B"), False, "A and B was drawn from more often in one run than in the other"),
        ("start", ("A",), True, "A began elsewhere in each process, and was drawn from: give it a seed"),
    ],
)
def test_where_nothing_helps_the_kind_of_fault_is_told(
    kind: str, streams: tuple[str, ...], fresh: bool, says: str
) -> None:
    told = advice(Runs(lambda _: False, fresh=fresh), replace(WRONG, kind=kind, streams=streams))
    assert told[0] == "No setting that was tried makes it identical."
    assert told[1].startswith(says)
    assert len(told) == 2


@pytest.mark.parametrize(("one", "other", "who"), [(("a",), ("a", "b"), "run 2"), (("a", "b"), ("a",), "run 1")])
def test_a_run_that_goes_on_where_the_other_ends_is_told(one: tuple[str], other: tuple[str], who: str) -> None:
    found = first_difference(record(*one), record(*other), 2)
    assert found is not None
    assert str(found) == (
        f"order of things at model ({who} went on with the output of model, call 2, step 1, the other one did not)"
    )
    assert first_difference(record(*one), record(*one), 2) is None
