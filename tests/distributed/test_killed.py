"""A rank that is killed: the others end with a sentence about it, and the checkpoint before goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.distributed import spread
from tests.distributed.parameters import apart, whole_parameters
from tests.distributed.started import torchrun
from torchturbo import load_checkpoint, save_checkpoint, turbo
from torchturbo._distribute import checkpoint, gone
from torchturbo.errors import CheckpointError


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_others_say_who_is_gone_and_the_checkpoint_before_goes_on(tmp_path: Path) -> None:
    # torchrun would end the others itself, maybe before they have said why. The group would wait for 20 seconds.
    code, said = torchrun("-m", "tests.distributed.killed", tmp_path, monitor_interval=3, seconds=60)
    assert code != 0
    assert "torchturbo: rank 1 (process " in said
    assert f"on {socket.gethostname()} is gone: it was killed or ended without the others" in said
    assert (tmp_path / "checkpoint.writing").exists()

    reference = spread.model()
    batches = spread.loader()
    optimizer = spread.optimizer_of(reference)
    with turbo("exact", num_threads=1, **spread.FP16):
        spread.train(reference, batches, optimizer)

    module, batches = spread.model(3), spread.loader()
    optimizer = spread.optimizer_of(module)
    list(batches)
    with turbo("exact", num_threads=1, **spread.FP16) as active:
        assert load_checkpoint(tmp_path / "checkpoint", module, optimizer, active=active) == {"epoch": 1}
        spread.train(module, batches, optimizer, epochs=1)
        save_checkpoint(tmp_path / "checkpoint", module, optimizer, active=active)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint"]
    assert apart(whole_parameters(module), whole_parameters(reference)) <= 1e-3


# ----------------------------------------------------------------------------------------------------- in one process


def test_who_is_gone_is_named() -> None:
    host = socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    note = gone.told(((host, os.getpid(), 0), (host, ended.pid, 1)))
    assert note is not None
    assert f"rank 1 (process {ended.pid}) on {host} is gone" in note
    note = gone.told(((host, os.getpid(), 0), (host, ended.pid, 1), (host, ended.pid, 2)))
    assert note is not None
    assert f"and rank 2 (process {ended.pid}) on {host} are gone: they were killed" in note
    note = gone.told(((host, os.getpid(), 0), ("elsewhere", 1, 1)))
    assert note is not None
    assert "or one on another machine is gone" in note
    assert gone.told(()) is None


def test_errors_of_others_are_told_from_ones_own() -> None:
    assert gone.is_of_others(RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1"))
    assert gone.is_of_others(torch.distributed.DistBackendError("NCCL communicator was aborted"))
    assert not gone.is_of_others(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not gone.is_of_others(ValueError("connection"))


def test_what_ends_a_process_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[BaseException] = []
    monkeypatch.setattr(gone._Known, "before", staticmethod(lambda kind, error, trace: said.append(error)))
    monkeypatch.setattr(gone._Known, "processes", ((socket.gethostname(), os.getpid(), 0),))
    monkeypatch.setattr(gone._Known, "failed", False)
    error = RuntimeError("Connection reset by peer")
    gone._said(RuntimeError, error, None)
    assert said == [error]
    assert gone.has_failed()
    assert "one hangs, or does another step" in error.__notes__[0]


def test_a_save_that_fails_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    module = nn.Linear(2, 2)
    save_checkpoint(path, module, extra={"step": 1})

    class Interrupted(Exception):
        pass

    def fails(*args: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_written", fails)
        with pytest.raises(Interrupted):
            save_checkpoint(path, module, extra={"step": 2})
    assert load_checkpoint(path, module) == {"step": 1}
    # Between the two renames.
    path.rename(tmp_path / "checkpoint.former")
    assert load_checkpoint(path, module) == {"step": 1}
    save_checkpoint(path, module, extra={"step": 3})
    assert load_checkpoint(path, module) == {"step": 3}
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_what_is_no_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="is not there"):
        load_checkpoint(tmp_path / "none", module)
    (tmp_path / "half").mkdir()
    with pytest.raises(CheckpointError, match="is not whole"):
        load_checkpoint(tmp_path / "half", module)
    (tmp_path / "half" / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"load it by torch\.distributed\.checkpoint\.load"):
        load_checkpoint(tmp_path / "half", module)
    path = save_checkpoint(tmp_path / "bare", module)
    with turbo("exact") as active, pytest.raises(CheckpointError, match="active=active"):
        load_checkpoint(path, module, active=active)
