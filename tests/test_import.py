"""Importing torchturbo loads nothing that is only sometimes needed, and changes nothing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import torchturbo

ROOT = Path(__file__).parents[1]
NOT_YET = ("pynvml", "rich", "click", "matplotlib", "numpy", "sklearn", "torch._dynamo", "torch._inductor", "sympy")
OFFENDER = """
import os, warnings
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
import rich, torch._inductor.config
torch.set_float32_matmul_precision("high")
torch.set_grad_enabled(False)
torch.manual_seed(1)
torch.autograd._engine_run_backward = print
register_optimizer_step_pre_hook(print)
os.environ["OFFENDED"] = "1"
warnings.simplefilter("ignore")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What importing torchturbo does, and then a module that does all that it should not."""
    folder = tmp_path_factory.mktemp("offender")
    (folder / "offender.py").write_text(OFFENDER)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.importing", "torchturbo", "torchturbo._accelerate", "offender"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    loaded: dict[str, dict[str, list[str]]] = json.loads(run.stdout)
    return loaded


def too_early(loads: list[str]) -> set[str]:
    return {name for name in NOT_YET for module in loads if module == name or module.startswith(f"{name}.")}


def test_its_name_alone_loads_nothing(found: dict[str, dict[str, list[str]]]) -> None:
    ours = [module for module in found["torchturbo"]["loads"] if module.startswith("torch")]
    assert ours == ["torchturbo"], "what is in it is loaded when it is asked for"


def test_it_loads_nothing_that_can_wait(found: dict[str, dict[str, list[str]]]) -> None:
    loads = found["torchturbo._accelerate"]["loads"]
    assert "torchturbo._turbo" in loads
    assert too_early(loads) == set()
    assert not any(module.startswith("torch.") for module in loads), "torch had all of itself loaded that is needed"


def test_it_changes_nothing(found: dict[str, dict[str, list[str]]]) -> None:
    assert found["torchturbo"]["changes"] == []
    assert found["torchturbo._accelerate"]["changes"] == []


def test_what_it_must_not_load_or_change_would_be_seen(found: dict[str, dict[str, list[str]]]) -> None:
    assert {"rich", "torch._inductor"} <= too_early(found["offender"]["loads"])
    changes = "\n".join(found["offender"]["changes"])
    for what in (
        "_get_float32_matmul_precision",
        "is_grad_enabled",
        "torch CPU generator",
        "torch.autograd._engine_run_backward",
        "torch.optim.optimizer._global_optimizer_pre_hooks",
        "os.environ[OFFENDED]",
        "warnings.filters",
    ):
        assert what in changes, what


def test_its_names_are_there_when_they_are_asked_for() -> None:
    assert set(torchturbo._FROM) == set(torchturbo.__all__) - {"__version__"}
    assert set(torchturbo.__all__) <= set(dir(torchturbo))
    assert torchturbo.errors is importlib.import_module("torchturbo.errors")
    with pytest.raises(AttributeError, match="module 'torchturbo' has no attribute 'accelerated'"):
        getattr(torchturbo, "accelerated")  # noqa: B009 - type checkers see it too


def test_a_module_that_is_there_and_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind")
    monkeypatch.setattr(torchturbo, "__path__", [*torchturbo.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        getattr(torchturbo, "broken")  # noqa: B009
