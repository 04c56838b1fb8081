"""`torchturbo bench` and `profile`: what they print and write, and the code they end with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run

TRAIN = """
import torch

def make_step():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)

    def step():
        print("hello")
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        return loss.detach()

    return step

def fails():
    raise RuntimeError("out of cheese")
"""


@pytest.fixture(autouse=True)
def _as_before(compiler: None) -> Iterator[None]:
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    name = f"train_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TRAIN)
    yield f"{name}.py"
    sys.modules.pop(name, None)


def test_a_step_is_measured_and_shown_and_written(typed: Run, train: str) -> None:
    line = ["bench", f"{train}:make_step()", "--profiles", "exact,fast", "--budget", "0.01", "--html", "found.html"]
    code, out, err = typed(*line)
    assert code == 0
    assert "hello" in err
    assert "hello" not in out
    lines = out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("settings"))
    assert [line.split("  ")[0] for line in lines[head + 2 : head + 5]] == ["as it is", "exact", "fast"]
    assert "Speed-up" in out
    assert err.endswith("written: found.html\n")
    assert Path("found.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_built_in_model_is_measured_in_its_place(typed: Run) -> None:
    line = ["bench", "--model", "mlp", "--size", "tiny", "--set", "num_threads=1", "--budget", "0.01", "--json"]
    code, out, _ = typed(*line)
    told = json.loads(out)
    assert code == 0
    assert [row["name"] for row in told["rows"]][-1] == "num_threads=1"
    assert all(len(row["samples"]) == told["rounds"] for row in told["rows"])


def test_the_layers_of_a_step_are_named(typed: Run, train: str) -> None:
    code, out, err = typed("profile", f"{train}:make_step()", "--steps", "1", "--trace", "step.json")
    assert code == 0
    assert "hello" in err
    assert "Shares of the step" in out
    assert "\nmodel " in out
    assert f"trace:{Path('step.json').absolute()},tobeopenedathttps://ui.perfetto.dev" in "".join(out.split())
    assert json.loads(Path("step.json").read_text())["traceEvents"]


def test_the_layers_of_a_built_in_model_are_named(typed: Run) -> None:
    code, out, _ = typed(
        "profile", "--model", "gpt", "--size", "tiny", "--steps", "1", "--top", "2", "--profile", "fast"
    )
    assert code == 0
    assert out.startswith("gpt tiny: 11,632 parameters, 2 sequences of 8 symbols a step, AdamW\n")
    assert "under profile='fast'" in out
    assert " more layers: " in out


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_what_raises_ends_with_2_and_its_traceback(typed: Run, train: str, command: str) -> None:
    code, out, err = typed(command, f"{train}:fails")
    assert (code, out) == (2, "")
    assert "in fails" in err
    assert err.endswith("RuntimeError: out of cheese\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected a FUNCTION, as train.py:step, or a model that is built in, as --model gpt"),
        (["train.py:step", "--model", "gpt"], "both is one too many"),
        (["train.py:step", "--size", "tiny"], "--size is of a model that is built in: name one, as --model gpt"),
        (["nowhere.py:step"], "there is no file 'nowhere.py'"),
        (["--model", "gtp"], "'gtp' is not one of 'convnet', 'gpt', 'lstm', 'mlp'"),
        (
            ["--model", "mlp", "--set", "num_threads"],
            "--set num_threads: expected OPTION=VALUE, as --set num_threads=4",
        ),
        (["--model", "mlp", "--set", "num_treads=4"], "did you mean 'num_threads' or"),
        (["--model", "mlp", "--html", "nowhere/found.html"], "--html nowhere/found.html: nothing can be written there"),
    ],
)
@pytest.mark.parametrize("command", ["bench", "profile"])
def test_what_is_written_wrong_ends_with_2_and_what_to_write(
    typed: Run, train: str, command: str, words: list[str], says: str
) -> None:
    code, out, err = typed(command, *words)
    assert (code, out) == (2, "")
    assert says in " ".join(err.split())
    assert err.startswith("Usage: ")


def test_a_profile_that_is_not_there_is_said_before_anything_is_measured(typed: Run) -> None:
    code, _, err = typed("bench", "--model", "mlp", "--size", "tiny", "--profiles", "fats")
    assert code == 2
    assert "did you mean 'fast'?" in err


def test_a_picture_needs_matplotlib_before_anything_is_measured(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = typed("bench", "--model", "mlp", "--png", "found.png")
    assert (code, out) == (2, "")
    assert 'pip install "torchturbo[plot]"' in err


def test_the_name_of_a_profile_is_no_step(typed: Run) -> None:
    code, out, err = typed("profile", "fast")
    assert (code, out) == (2, "")
    assert "'fast' is a profile: `torchturbo profiles fast` tells of it" in err
