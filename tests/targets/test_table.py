"""Every target in every situation leaves nothing behind, and gives what it gives undecorated."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.targets import zoo
from tests.targets.leaky import CAUGHT_IN
from tests.targets.table import SITUATIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def judged() -> dict[str, dict[str, dict[str, list[str]]]]:
    """What the witness says of every cell, in a process of its own whose torch nobody has touched."""
    asked = {"accelerate": list(zoo.TARGETS)} | {leaky.__name__: [cell[0]] for leaky, cell in CAUGHT_IN.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.targets.table", json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, dict[str, dict[str, list[str]]]] = json.loads(done.stdout)
    return answer


KNOWN = {
    # Methods pickle by their own name, which finds the plain one beneath: the profile is lost (see docs/limits.md).
    ("partialmethod", "pickled"),
}
if sys.version_info >= (3, 13):
    # A class method no longer asks what it is around to bind itself: cloudpickle takes that apart (see docs/limits.md).
    KNOWN |= {(f"{kind} classmethod", "cloudpickled") for kind in ("generator", "coroutine", "async generator")}


@pytest.mark.parametrize(
    ("target", "situation"),
    [
        pytest.param(*cell, marks=pytest.mark.xfail(reason="said above", strict=True) if cell in KNOWN else ())
        for cell in itertools.product(zoo.TARGETS, SITUATIONS)
    ],
)
def test_nothing_is_left_behind_and_nothing_differs(judged: Any, target: str, situation: str) -> None:
    assert judged["accelerate"][target][situation] == []


def test_the_table_is_whole(judged: Any) -> None:
    cells = [cell for situations in judged["accelerate"].values() for cell in situations]
    assert len(cells) == len(zoo.TARGETS) * len(SITUATIONS)
    assert len(zoo.TARGETS) >= 32
    assert {"returns", "raises", "nested", "threaded", "pickled"} <= SITUATIONS.keys()


@pytest.mark.parametrize("leaky", CAUGHT_IN, ids=lambda leaky: leaky.__name__)
def test_a_leaky_decorator_is_caught(judged: Any, leaky: Callable[[Any], Any]) -> None:
    target, situation, words = CAUGHT_IN[leaky]
    assert any(words in line for line in judged[leaky.__name__][target][situation]), "the table is blind"
