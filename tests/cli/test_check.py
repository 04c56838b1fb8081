"""`torchturbo check`: what it prints, and the code it ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from torchturbo.cli import main

TRAIN = """
import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 2)
made = []

def step():
    print("hello")
    return model(torch.randn(1, 2))

def make_step():
    made.append(1)
    return step

def differs(many=[]):
    many.append(1)
    return torch.ones(1) * next(numbers)

def fails():
    raise RuntimeError("out of cheese")

numbers = (number for number in range(100))
constant = 3

if __name__ == "__main__":
    raise SystemExit("ran as a script")
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    name = f"train_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TRAIN)
    yield f"{name}.py"
    sys.modules.pop(name, None)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["check", "--price-seconds", "0", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_what_is_identical_ends_with_0(train: str) -> None:
    code, out, err = run(f"{train}:step", "--runs", "3", "--profile", "reproducible")
    assert (code, err) == (0, "hello\n" * 3)
    assert out.startswith("Identical to the bit: 3 runs in this process, from the same state, under\n")
    assert "profile='reproducible'" in out


def test_what_a_function_makes_is_checked_and_made_once(train: str) -> None:
    code, _, _ = run(f"{train}:make_step()")
    assert code == 0
    assert sys.modules[train.removesuffix(".py")].made == [1]


def test_a_module_is_found_by_its_name(train: str) -> None:
    assert run(f"{train.removesuffix('.py')}:step")[0] == 0


def test_what_differs_ends_with_1(train: str) -> None:
    code, out, _ = run(f"{train}:differs", "--no-advise", "--json")
    told = json.loads(out)
    assert (code, told["identical"], told["difference"]["largest"]) == (1, False, 1.0)
    assert told["sentence"] == "returned value, float32 [1], largest difference 1"
    assert told["advice"][0].startswith("numbers (a generator) moves on with each run")
    code, out, _ = run(f"{train}:differs", "--no-advise")
    assert code == 1
    assert out.startswith("Different: 2 runs in this process")


def test_what_raises_ends_with_2_and_its_traceback(train: str) -> None:
    code, out, err = run(f"{train}:fails")
    assert (code, out) == (2, "")
    assert "in fails" in err
    assert err.endswith("RuntimeError: out of cheese\n")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("{}:stop", "has no 'stop': did you mean 'step'?"),
        ("{}:constant", "is a int, and no function: write FILE.py:FUNCTION"),
        ("{}", "names no function: write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, as in train.py:step"),
        ("{}:step()", "returned a Tensor, and no function to be run"),
        ("nowhere.py:step", "there is no file 'nowhere.py', asked for by 'nowhere.py:step'"),
        ("nowhere.at.all:step", "there is no module 'nowhere.at.all', asked for by 'nowhere.at.all:step'"),
    ],
)
def test_what_is_written_wrong_ends_with_2_and_what_to_write(train: str, wrong: str, says: str) -> None:
    code, out, err = run(wrong.format(train))
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("hello\n" if wrong == "{}:step()" else "Usage: ")


def test_what_fails_when_it_is_imported_is_shown(train: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_at_all")
    for name in ("broken.py", "broken"):
        code, out, err = run(f"{name}:step")
        assert (code, out) == (2, "")
        assert err.endswith("ModuleNotFoundError: No module named 'nowhere_at_all'\n")
    assert "broken" not in sys.modules


def test_a_file_with_the_name_of_another_module_is_not_taken_for_it(train: str, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def step(): return 3")
    try:
        assert run("json.py:step")[0] == 0
    finally:
        assert sys.modules.pop("checked_json").__file__ == str(tmp_path / "json.py")
    assert sys.modules["json"] is json


def test_options_are_refused_as_everywhere(train: str) -> None:
    assert run(f"{train}:step", "--runs", "1")[0] == 2
    code, _, err = run(f"{train}:step", "--profile", "fats")
    assert code == 2
    assert "'fast'" in err


def test_help_says_what_a_function_has_to_be() -> None:
    _, out, _ = run("--help")
    assert "def make_step():" in out
    assert 'torchturbo check "train.py:make_step()" --fresh --profile reproducible' in out
    assert "Exit codes: 0 identical, 1 different, 2 wrong usage" in out


SCRIPT = """
import argparse, sys
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.5)
lr = parser.parse_args().lr

def step():
    return [lr, sys.argv]

def ends():
    sys.exit(0)

def build():
    return torch.nn.Linear(3, 3)

def nothing():
    torch.rand(3)
"""


@pytest.fixture
def script(train: str, tmp_path: Path) -> Iterator[str]:
    name = f"script_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SCRIPT)
    yield f"{name}.py"
    sys.modules.pop(name, None)


def test_a_script_finds_no_arguments_of_ours(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ["torchturbo", "check", "--runs", "3"]
    monkeypatch.setattr(sys, "argv", ours)
    code, out, _ = run(f"{script}:step", "--json")
    assert (code, json.loads(out)["values"]) == (0, 2)
    assert sys.modules[script.removesuffix(".py")].step() == [0.5, ours]
    assert sys.argv is ours


def test_neither_an_exit_nor_nothing_is_identical(script: str, tmp_path: Path) -> None:
    code, out, err = run(f"{script}:ends")
    assert (code, out) == (2, "")
    assert "Error: the function ended by sys.exit(0), so that there is nothing to compare" in err
    code, out, err = run(f"{script}:nothing")
    assert (code, out) == (2, "")
    assert "nothing of the function could be compared" in err
    (tmp_path / "at_once.py").write_text("import sys\nsys.exit()")
    code, out, err = run("at_once.py:step")
    assert (code, out) == (2, "")
    assert "at_once.py ended by sys.exit() when it was imported, without arguments: put what it does" in err


def test_fresh_processes_see_a_model_and_an_exit_as_well(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["torchturbo", "--runs", "3"])
    code, out, _ = run(f"{script}:build", "--fresh", "--no-advise", "--json")
    assert (code, json.loads(out)["difference"]["part"]) == (1, ".weight")
    code, out, err = run(f"{script}:ends", "--fresh")
    assert (code, out) == (2, "")
    assert "the function ended by sys.exit(0), so that there is nothing to compare" in err


def test_a_file_of_a_package_is_named_as_one(train: str, tmp_path: Path) -> None:
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "train.py").write_text("from .model import make")
    code, out, err = run("outer/inner/train.py:step")
    assert (code, out) == (2, "")
    assert "write outer.inner.train:step, in the folder" in err
