"""`torchturbo profiles`: what each would do on a machine, which is what a plan for that machine holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from torchturbo._plan import decide
from torchturbo.profiles import PROFILES
from torchturbo.testing import MACHINES


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("machine", MACHINES)
def test_on_each_machine_it_is_what_the_plan_says(typed: Run, machine: str) -> None:
    code, out, err = typed("profiles", "--json", "--machine", machine.upper())
    told = json.loads(out)
    assert (code, err, told["machine"], list(told["profiles"])) == (0, "", machine, list(PROFILES))
    for name, profile in PROFILES.items():
        plan = decide(profile, {}, MACHINES[machine])
        its = told["profiles"][name]
        assert (its["gain"], its["give"], its["built_in"]) == (profile.gain, profile.give, True)
        assert {option: (how["acts"], how["reason"]) for option, how in its["options"].items()} == {
            decision.name: (decision.refused is None, decision.refused) for decision in plan.decisions
        }
        assert all(
            its["options"][d.name]["here"] == (None if d.refused else d.value)
            and its["options"][d.name]["asked"] == d.asked
            for d in plan.decisions
        )


def test_for_people_it_says_what_acts_and_why_the_rest_does_not(typed: Run) -> None:
    code, out, err = typed("profiles", "fast", "--machine", "rtx3090")
    assert (code, err) == (0, "")
    assert out.startswith("On RTX 3090, which is pretended\n")
    lines = out.splitlines()
    assert "  + TF32 and bf16 where the hardware has them: usually several times faster," in lines
    assert "  matmul_precision  high       tf32=True  high" in lines
    assert "  autocast          auto                  bf16" in lines
    code, out, _ = typed("profiles", "fast", "--machine", "cpu")
    assert "  autocast          auto                  no (3)\n" in out
    assert "\n(1) cuDNN runs on NVIDIA GPUs, and there is none here\n(2) " in out


def test_this_machine_is_the_one_that_it_is(typed: Run) -> None:
    code, out, _ = typed("profiles", "debug")
    assert (code, out.startswith("On this machine\n  CPU: ")) == (0, True)
    assert "\ndebug\n" in out
    assert "fast" not in out


def test_what_the_file_makes_and_others_ask_for_counts(
    typed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchturbo.toml").write_text(
        'profile = "mine"\nanomaly = true\n[profiles.mine]\nnum_threads = 3\ngain = "Quiet."\n'
    )
    monkeypatch.setenv("TORCHTURBO_NUM_THREADS", "2")
    monkeypatch.setenv("TORCHTURBO_PROFILE", "exact")
    code, out, _ = typed("profiles", "mine", "--machine", "a100")
    assert code == 0
    assert "\nmine\n  + Quiet.\n" in out
    assert "  anomaly      True       torchturbo.toml:2       True\n" in out
    assert "  num_threads  2          TORCHTURBO_NUM_THREADS  2\n" in out
    assert "Where the code names no profile, it is mine (from the file).\n" in out
    assert "TORCHTURBO_PROFILE puts exact in the place of whatever the code names.\n" in out
    assert list(json.loads(typed("profiles", "--json")[1])["profiles"]) == [*PROFILES, "mine"]
    monkeypatch.setenv("TORCHTURBO_DISABLE", "1")
    assert "TORCHTURBO_DISABLE=1 switches torchturbo off" in typed("profiles", "fast")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fats"], "there is no profile 'fats': did you mean 'fast'?"),
        (["--machine", "a10"], "there is no machine 'a10' to pretend: did you mean 'A100'"),
    ],
)
def test_a_typo_is_one_line_with_the_near_ones(typed: Run, words: list[str], says: str) -> None:
    code, out, err = typed("profiles", *words)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_file_that_cannot_be_read_is_one_line(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "torchturbo.toml").write_text("num_treads = 4\n")
    code, out, err = typed("profiles")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: torchturbo.toml:1: there is no option 'num_treads'")
