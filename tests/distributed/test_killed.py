"""A rank that is killed: the others end with a sentence about it, and the checkpoint before goes on."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter

from tests.distributed import spread
from tests.distributed.parameters import apart, whole_parameters
from tests.distributed.started import torchrun
from torchturbo import load_checkpoint, save_checkpoint, turbo
from torchturbo._distribute import checkpoint, gone
from torchturbo.errors import CheckpointError
from torchturbo.regions import _gradients


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


def test_what_others_have_said_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    host = socket.gethostname()
    processes = ((host, os.getpid(), 0), (host, os.getppid(), 1), ("elsewhere", 1, 2))
    monkeypatch.setattr(gone._Known, "processes", processes)
    monkeypatch.setattr(gone._Known, "store", torch.distributed.HashStore())
    gone.say("waits")
    assert gone.heard() == {0: "waits"}
    said = {**gone.heard(), 2: "waits"}
    assert "not answer (or is gone with its machine): it hangs" in str(gone.told(processes, lambda: said))
    assert f"rank 1 (process {os.getppid()}) on {host} does not answer" in str(gone.told(processes, lambda: said))
    said[2] = "has failed: ValueError: a bad sample"
    assert "rank 2 (process 1) on elsewhere has failed: ValueError: a bad sample." in str(
        gone.told(processes, lambda: said)
    )
    monkeypatch.setattr(gone._Known, "store", None)
    assert gone.heard() == {}
    gone.say("whom nobody hears")


def test_a_backward_that_fails_asks_no_other_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(_gradients, "told_to_all", lambda fine, leaves: asked.append(fine) or fine)
    module = nn.Linear(2, 1)

    def fails(grad: object) -> None:
        raise ValueError("on purpose")

    with turbo("exact", autocast="fp16", init_scale=8.0):
        for hooked in (False, True):
            found = module(torch.ones(1, 2))
            if hooked:
                module.weight.register_hook(lambda grad: None)
            found.register_hook(fails)
            with pytest.raises(ValueError, match="on purpose"):
                found.sum().backward()
        assert asked == []
        module(torch.ones(1, 2)).sum().backward()
    assert asked


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


def test_nothing_but_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    (tmp_path / "mine.txt").touch()
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(CheckpointError, match=r"would be replaced.*there is 'mine.txt'"):
            save_checkpoint(path, module)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for step in range(2):
        save_checkpoint(tmp_path / "link", module, extra={"step": step})
    assert load_checkpoint(tmp_path / "empty", module) == {"step": 1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "link", "mine.txt"]


def test_what_torch_cannot_write_or_read_is_an_error_that_except_exception_catches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, module = tmp_path / "checkpoint", nn.Linear(2, 2)
    save_checkpoint(path, module)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FileSystemWriter, "write_data", full)
        with pytest.raises(CheckpointError, match=r"is not written, since rank 0 has failed: OSError.*No space left"):
            save_checkpoint(path, module)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]
    for part in path.glob("*.distcp"):
        part.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read, since rank 0 has failed: "):
        load_checkpoint(path, module)
    (path / ".metadata").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="a file of it is torn"):
        load_checkpoint(path, module)


def test_a_checkpoint_of_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    def made(*sizes: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(2, size) for size in sizes))

    module = made(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = save_checkpoint(tmp_path / "checkpoint", module, optimizer)
    for sizes, what in {(2,): "it has '1.", (2, 2, 2): "it has no '2.", (2, 3): "has the shape (2, 2) there"}.items():
        with pytest.raises(CheckpointError, match=f"of another model: .*{re.escape(what)}"):
            load_checkpoint(path, made(*sizes))
    module[0].requires_grad_(False)  # what was kept of it is of no use any more
    load_checkpoint(path, module, torch.optim.AdamW(module.parameters()))
    module[0].requires_grad_(True)
    weights = list(module.parameters())
    two = torch.optim.AdamW([{"params": weights[:2]}, {"params": weights[2:]}])
    with pytest.raises(CheckpointError, match="have 1 groups of parameters, and these have 2"):
        load_checkpoint(path, module, two)
    with pytest.raises(CheckpointError, match="has no optimizer"):
        load_checkpoint(save_checkpoint(tmp_path / "bare", module), module, two)
    with pytest.raises(CheckpointError, match="LBFGS steps with a closure alone"):
        save_checkpoint(tmp_path / "bare", module, torch.optim.LBFGS(weights))
    for other in (torch.optim.SGD(module.parameters()), torch.optim.SGD(module.parameters(), momentum=0.9)):
        with pytest.raises(
            CheckpointError, match=r"of another optimizer: of '0\.weight' it has exp_avg, exp_avg_sq, step"
        ):
            load_checkpoint(path, module, other)
        assert not other.state


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
