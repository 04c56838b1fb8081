"""The page to paste from trains, stops and goes on to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from examples import training_template


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(folder: Path, epochs: int, *more: str) -> dict[str, Any]:
    checkpoint = folder / "checkpoint.pt"
    right = training_template.main(["--epochs", str(epochs), "--quiet", "--checkpoint", str(checkpoint), *more])
    return {"right": right, **torch.load(checkpoint, weights_only=True)}


def test_it_learns_and_goes_on_as_if_it_had_not_been_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", 3)
    assert whole["right"] > 0.8
    printed = capsys.readouterr().out
    assert "epoch   2" in printed
    assert "torchturbo 0" in printed

    class Stopped(Exception):
        pass

    def stop_after_the_second(*args: Any) -> None:
        save(*args)
        if args[1] == 1:
            raise Stopped

    save = training_template.save
    monkeypatch.setattr(training_template, "save", stop_after_the_second)
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", 3)
    monkeypatch.setattr(training_template, "save", save)
    went_on = train(tmp_path / "stopped", 3, "--resume", str(tmp_path / "stopped" / "checkpoint.pt"))
    assert went_on["right"] == whole["right"]
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, went_on["model"][name]), name


def test_it_runs_under_every_profile_that_trains(tmp_path: Path) -> None:
    for profile in ("low_memory", "reproducible"):
        assert train(tmp_path / profile, 1, "--profile", profile)["right"] > 0.3
