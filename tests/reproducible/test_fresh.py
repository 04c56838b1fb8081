"""Runs in processes of their own: what differs there only, how functions get there, and what cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reproducible import faults
from torchturbo import check_reproducible
from torchturbo._reproducible import check, fresh
from torchturbo._reproducible.price import Price
from torchturbo.errors import OptionValueError, ReproducibilityError, TargetError


def test_the_order_of_a_set_is_found_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_SURE", 2)
    assert check_reproducible(faults.over_a_set, price_seconds=0), "one process has one order"
    found = check_reproducible(faults.over_a_set, fresh=True, price_seconds=0)
    assert found.difference is not None
    assert (found.difference.kind, found.difference.dtype, found.difference.shape) == ("returned", "float32", (64,))
    assert found.difference.largest is not None
    assert 0 < found.difference.largest < 1e-5
    assert found.advice[0] == (
        "It is identical in 2 runs under PYTHONHASHSEED='0'; of what was tried, this is the smallest change."
    )
    assert "sort it, as in `for name in sorted(names)`" in found.advice[1]


SCRIPT = """
import torch, sys
from torchturbo import check_reproducible

def step():
    print("not on the way")
    return made

import random
made = torch.ones(2) * random.random()
if __name__ == "__main__":
    print(check_reproducible(step, fresh=True, advise=False, price_seconds=0).to_json())
"""


def test_a_function_of_a_script_is_found_and_its_python_stream_starts_elsewhere(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["identical"] is False
    assert told["difference"]["kind"] == "returned"
    assert told["difference"]["streams"] == ["Python's random"]


def test_a_process_that_ends_in_the_middle_is_told() -> None:
    with pytest.raises(ReproducibilityError, match=r"\Aa fresh process ended with 7 in the middle of it:\n"):
        check_reproducible("tests.reproducible.faults:ended", fresh=True)


def test_what_a_function_raises_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_one(command: list[str], **_: Any) -> None:
        found = re.search(r"run\('(.+)'\)\Z", command[-1])
        assert found is not None
        fresh.run(found[1])

    monkeypatch.setattr(fresh.subprocess, "run", in_this_one)
    with pytest.raises(ReproducibilityError) as raised:
        check_reproducible("tests.reproducible.faults:raises", fresh=True)
    assert str(raised.value).startswith("the function raised in a fresh process:\nTraceback")
    assert str(raised.value).endswith("RuntimeError: out of cheese\n")
    with pytest.raises(TargetError, match="has no 'rises': did you mean 'raises'"):
        check_reproducible("tests.reproducible.faults:rises", fresh=True)
    found = check_reproducible("tests.reproducible.faults:over_a_set", fresh=True, price_seconds=0.2)
    assert found
    assert found.price is not None


def order(function: Any, **changes: Any) -> fresh.Order:
    return fresh.Order({}, function, {}, None)._replace(**changes)


def test_what_a_process_does_with_its_order() -> None:
    answer = fresh._answer(order("tests.reproducible.faults:over_a_set"))
    assert answer.record is not None
    assert answer.record.tensors >= 1
    assert fresh._answer(
        order("tests.reproducible.faults:nothing")
    ).wrong == "tests.reproducible.faults has no 'nothing': " + (answer_of_near())
    priced = fresh._answer(order("tests.reproducible.faults:over_a_set", price_seconds=0.2)).price
    assert isinstance(priced, Price)
    assert "out of cheese" in str(fresh._answer(order("tests.reproducible.faults:raises")).failed)


def answer_of_near() -> str:
    from torchturbo.errors import near

    return near("nothing", [name for name, value in vars(faults).items() if callable(value) and name[0] != "_"])


def test_what_cannot_go_to_another_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"fresh=True cannot hand .*<lambda> or its arguments to another process"):
        check_reproducible(lambda: 1, fresh=True)
    with pytest.raises(OptionValueError, match="fresh=True finds those of its own by itself"):
        check_reproducible(faults.over_a_set, fresh=True, modules=[faults.Scattered()])
    monkeypatch.setitem(vars(sys.modules["__main__"]), "in_a_prompt", in_a_prompt)
    monkeypatch.setattr(in_a_prompt, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None)
    with pytest.raises(
        TargetError, match="was written into a notebook or a prompt: write it into a file and import it"
    ):
        check_reproducible(in_a_prompt, fresh=True)
    monkeypatch.setenv("_TORCHTURBO_CHECKS_IN_THIS_PROCESS", "1")
    with pytest.raises(TargetError, match='put the call under if __name__ == "__main__":'):
        check_reproducible(faults.over_a_set, fresh=True)


def in_a_prompt() -> None:
    """As one types it."""
