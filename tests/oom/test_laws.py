"""A step in parts is the step; one that cannot be taken has changed nothing; and what breaks that is caught."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oom.steps import FORMS, MODELS, OPTIMIZERS, Case, check_equal, check_unchanged
from torchturbo._oom.before import Before
from torchturbo._oom.reached import Lightly
from torchturbo._replay.kept import Keeper
from torchturbo.regions._accumulating import Accumulation
from torchturbo.regions._shares import Shares

cases = st.builds(
    Case,
    model=st.sampled_from(sorted(MODELS)),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    samples=st.lists(st.integers(4, 11), min_size=1, max_size=3).map(tuple),
    room=st.integers(2, 5),
    at=st.sampled_from(["forward", "backward", "optimizer"]),
    form=st.sampled_from(sorted(FORMS)),
    clears=st.sampled_from(["first", "last"]),
    in_place=st.booleans(),
    clips=st.booleans(),
)


@given(cases)
@settings(max_examples=30, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_a_step_in_parts_is_the_step(case: Case) -> None:
    check_equal(case)


@given(cases)
@settings(max_examples=12, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_a_step_that_cannot_be_taken_has_changed_nothing(case: Case) -> None:
    check_unchanged(case)


def nothing(*_: Any, **__: Any) -> None:
    pass


MUTANTS: dict[str, tuple[Any, str, Any, Any, Case]] = {
    "each part weighs as much as the others": (
        Shares, "share_of", lambda self, grad: grad / len(self.shares), check_equal, Case(samples=(7,)),
    ),
    "each part steps": (Accumulation, "happens", lambda *_: True, check_equal, Case()),
    "clipped gradients are added up": (
        Shares, "end", lambda self, leaves: [setattr(self._sum(leaf), "newest", leaf.grad) for leaf in leaves],
        check_equal, Case(),
    ),
    "nothing is put back": (Before, "put_back", nothing, check_unchanged, Case()),
    "weights are not copied": (Before, "copy", nothing, check_unchanged, Case(at="optimizer")),
    "streams move on": (Keeper, "stream", nothing, check_unchanged, Case()),
    "what the loop counts moves on": (Keeper, "container", nothing, check_unchanged, Case()),
    "gradients are taken for dropped": (
        Lightly, "__init__",
        lambda self, dropped, looks, init=Lightly.__init__: init(self, True, looks),
        check_unchanged, Case(in_place=True),
    ),
    "what is remembered is taken whole": (
        Shares, "next", lambda self: setattr(self, "_at", 0), check_equal, Case(samples=(7,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_what_breaks_a_law_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, broken, check, case = MUTANTS[name]
    check(case)
    monkeypatch.setattr(where, attribute, broken)
    with pytest.raises((AssertionError, RuntimeError)):
        check(case)
