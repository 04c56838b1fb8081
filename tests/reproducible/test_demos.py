"""The demos train to the same bits twice, in one process and in fresh ones."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn", reason="the examples need the extra 'demo'")

from tests.reproducible import demos
from torchturbo import check_reproducible
from torchturbo._replay.here import Here
from torchturbo._reproducible.compare import first_difference


@pytest.mark.parametrize("demo", [demos.gpt, demos.conv])
@pytest.mark.parametrize("profile", [None, "reproducible"])
def test_a_demo_is_identical_in_one_process(demo: object, profile: str | None) -> None:
    found = check_reproducible(demo(), profile=profile, price_seconds=0)  # type: ignore[operator]
    assert found, str(found)
    assert found.steps >= 3
    assert len(found.modules) >= 7


def test_a_seed_makes_both_the_same_in_fresh_processes_and_another_one_does_not() -> None:
    settings = {"profile": "reproducible", "seed": 0}
    found = check_reproducible("tests.reproducible.demos:trained", fresh=True, price_seconds=0, **settings)
    assert found, str(found)
    assert (found.fresh, found.steps) == (True, 3 + 4)
    assert str(found).startswith(
        "Identical to the bit: 2 runs each in a fresh process, under profile='reproducible', seed=0.\n"
    )

    here = Here(demos.trained)
    first = here.record(settings)
    assert first.tensors == found.compared
    assert first_difference(first, here.record(settings), 2) is None
    other = first_difference(first, here.record({**settings, "seed": 1}), 2)
    assert other is not None
    assert (other.kind, other.name) == ("start", "GPT.bytes.weight")
    odd = first_difference(first, Here(demos.trained, (demos.one_is_odd,)).record(settings), 2)
    assert odd is not None
    assert (odd.kind, odd.name, odd.call, odd.step) == ("input", "Sequential", 2, 5)
    assert odd.largest is not None
    assert 0 < odd.largest < 0.03
    assert odd.streams == (), "a worker's streams are its own"
