"""The examples run as a user runs them, and leave a complete record."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from torchturbo.testing import pretend_hardware

pytest.importorskip("matplotlib", reason="the examples need the extra 'demo'")
pytest.importorskip("sklearn", reason="the examples need the extra 'demo'")

from examples import demo, digits, train_gpt

ROOT = Path(demo.__file__).parents[1]
STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def ran(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo, run as `make demo` does, in an empty folder."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-W", "error", "-m", "examples.demo", "--size", "tiny", "--steps", str(STEPS)]
    command += ["--data", data, "--out", str(folder / "plots/race.png"), "--json", str(folder / "race.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_it_prints_the_table_and_what_it_means(ran: tuple[Path, str]) -> None:
    _, printed = ran
    words = " ".join(printed.split())
    for expected in (
        "ms per step",
        "tokens per second",
        "speed-up",
        "loss at the last step",
        "drift",
        "noise",
        'turbo("fast") takes a step',
        "Everything is back.",
    ):
        assert expected in words


def test_it_saves_the_plot(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    plot = (folder / "plots/race.png").read_bytes()
    assert plot.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(plot) > 10_000


def test_the_record_is_complete(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    record = json.loads((folder / "race.json").read_text())
    assert list(folder.glob("*.part")) == []
    assert record["date"].endswith("+00:00")
    assert record["arguments"] == {"steps": STEPS, "seed": 0, "size": "tiny"}
    assert record["minutes"] > 0

    environment = record["environment"]
    assert environment["build"]["torch"] == str(torch.__version__)
    assert environment["cpu"]["name"]
    assert environment["cpu"]["cores"] >= 1
    assert environment["threads"] >= 1
    assert isinstance(environment["native_bf16"], bool)

    assert record["text"]["training_bytes"] > 1_000_000
    assert len(record["text"]["sha256"]) == 64
    assert record["model"]["parameters"] > 10_000
    assert "autocast" in {decision["name"] for decision in record["turbo"]["decisions"]}

    plain, turbo, other = (record["arms"][name] for name in ("plain", "turbo", "other"))
    for arm in (plain, turbo, other):
        assert len(arm["losses"]) == len(arm["warm_up"]) + len(arm["seconds"]) == STEPS
        assert len(arm["rounds"]) == 1
        assert arm["held_out"][0]["steps"] == 0
        assert arm["held_out"][-1]["steps"] == STEPS
    assert plain["first_weights"] == turbo["first_weights"] == other["first_weights"]
    assert plain["batches"] == turbo["batches"] != other["batches"]

    figures = record["figures"]
    assert figures["speed_up"]["median"] == pytest.approx(plain["rounds"][0] / turbo["rounds"][0])
    assert set(figures["drift"]) == set(figures["noise"]) == {"held_out_loss", "final_held_out_loss", "weights"}
    assert isinstance(figures["within_noise"], bool)
    assert record["digits"]["before"] == record["digits"]["after"] != record["digits"]["during"]


@pytest.mark.parametrize(("machine", "slow"), [("cpu", True), ("cpu-bf16", False)])
def test_a_machine_without_bf16_is_told_to_expect_nothing(
    machine: str, slow: bool, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Namespace(size="tiny", steps=4, seed=0, data=Path(data), out=tmp_path / "race.png")
    with pretend_hardware(machine):
        record = demo.compare(asked, Console())
    words = " ".join(capsys.readouterr().out.split())
    sentence = "No speed-up is to be expected here: AMD EPYC 7763 64-Core Processor computes bf16 by emulation"
    # Before the race, and again below the table, where a reader looks for the speed-up.
    assert words.count(sentence) == (2 if slow else 0)
    refused = {each["name"]: each["refused"] for each in record["turbo"]["decisions"]}
    assert (refused["autocast"] is not None) is slow


def test_too_few_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--steps", "3"])
    assert "at least 4: the first 3 only warm up" in capsys.readouterr().err


def test_digits_are_told_and_everything_is_back() -> None:
    seen = digits.run(epochs=3, seed=0)
    assert seen.losses[-1] < seen.losses[0]
    assert seen.plain > 0.8
    assert seen.inside == pytest.approx(seen.plain, abs=0.02)
    assert seen.before["gradients are recorded"] is True
    assert seen.during["gradients are recorded"] is False
    assert seen.everything_is_back


def test_digits_would_say_so_if_something_stayed(capsys: pytest.CaptureFixture[str]) -> None:
    seen = digits.run(epochs=1, seed=0)
    digits.show(replace(seen, after={**seen.after, "threads": 1000}), Console())
    assert "NOT everything is back." in capsys.readouterr().out


def test_the_script_trains_in_one_block_and_writes(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    train_gpt.main(["--size", "tiny", "--steps", "12", "--data", data])
    printed = capsys.readouterr().out
    assert "step    10   loss" in printed
    assert "step    12   loss" in printed
    assert "held-out loss" in printed
    assert "\ndef " in printed
