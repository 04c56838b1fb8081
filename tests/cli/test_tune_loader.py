"""`torchturbo tune-loader`: what it prints, and the code it ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from torchturbo.cli import main
from torchturbo.hardware import _room

TRAIN = """
from torch.utils.data import DataLoader

def make_loader():
    print("hello")
    return DataLoader(list(range(8)), 4)

def make_nothing():
    return 3
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(_room, "cores", lambda known: 1)
    name = f"loads_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TRAIN)
    yield f"{name}.py"
    sys.modules.pop(name, None)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["tune-loader", "--budget", "0.1 s", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_it_tells_what_it_has_found(train: str) -> None:
    code, out, err = run(f"{train}:make_loader", "--step-seconds", "0.5")
    assert (code, err) == (0, "hello\n")
    assert out.startswith("DataLoader(..., num_workers=")
    code, out, _ = run(f"{train}:make_loader", "--batches", "7", "--json")
    assert code == 0
    assert json.loads(out)["batches"] == 7


def test_what_is_no_loader_is_wrong_usage(train: str) -> None:
    code, _, err = run(f"{train}:make_nothing")
    assert code == 2
    assert "takes a torch.utils.data.DataLoader or a dataset, and 3 is neither" in " ".join(err.split())
    assert run(f"{train}:nothing")[0] == 2
