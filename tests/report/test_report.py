"""`report()` itself: it prints where people look, and changes and starts nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import FrozenInstanceError, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import torchturbo
from tests.fresh import Fresh
from tests.hardware.driver import Driver
from torchturbo import hardware, turbo
from torchturbo._report import gather
from torchturbo.testing import MACHINES, pretend_hardware


def test_it_prints_for_people_and_returns_what_it_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report = torchturbo.report()
    printed = capsys.readouterr()
    assert "matmul_precision" in printed.out
    assert printed.err == ""
    assert isinstance(report, torchturbo.Report)
    assert report == gather()


def test_a_block_reports_on_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with turbo("debug") as active:
        report = active.report()
    assert report.about is not None
    assert report.about.where == active.where
    assert "(this one)" in " ".join(capsys.readouterr().out.split()), "the line may wrap anywhere"


def test_it_cannot_be_changed() -> None:
    report = gather()
    with pytest.raises(FrozenInstanceError):
        report.advice = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        report["autocast"].now = "bf16"  # type: ignore[misc]


def test_it_prints_to_wherever_python_prints_now() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        torchturbo.report()
    assert "matmul_precision" in out.getvalue()


def test_a_terminal_that_cannot_write_a_name_gets_it_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    cpu = replace(MACHINES["cpu"].cpu, name="Proce\N{LATIN SMALL LETTER U WITH DIAERESIS}r")
    with pretend_hardware(replace(MACHINES["cpu"], cpu=cpu)):
        torchturbo.report()
    sys.stdout.flush()
    assert rb"Proce\xfcr" in raw.getvalue()


# -------------------------------------------------------------------------------------------------- notebooks


def ipython(shell: object) -> ModuleType:
    module = ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("shell", "prints"),
    [(SimpleNamespace(kernel=object()), False), (SimpleNamespace(), True), (None, True)],
    ids=["notebook", "terminal", "imported only"],
)
def test_in_a_notebook_the_cell_shows_it_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: object, prints: bool
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", ipython(shell))
    report = torchturbo.report()
    assert bool(capsys.readouterr().out) is prints
    assert "<table" in report._repr_html_()


# --------------------------------------------------------------------------------------- nothing is disturbed


def readings() -> dict[object, object]:
    """What every getter of ``torch._C`` that takes no argument answers in plain values, or that it refuses to."""
    found: dict[object, object] = {}
    for name in dir(torch._C):
        if name.startswith(("_get_", "is_", "_is_", "get_", "_cuda_get_")):
            try:
                answer = getattr(torch._C, name)()
            except Exception as error:
                answer = type(error).__name__
            if answer is None or isinstance(answer, bool | int | str | tuple | torch.dtype):
                found[name] = answer
    if hasattr(torch._C, "_get_fp32_precision_getter"):
        for backend in ("cuda", "mkldnn"):
            for operation in ("all", "matmul", "conv", "rnn"):
                found[backend, operation] = torch._C._get_fp32_precision_getter(backend, operation)
        found["generic"] = torch._C._get_fp32_precision_getter("generic", "all")
    return found


@pytest.mark.parametrize("parent", ["none", "ieee", "tf32", "bf16"])
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.8 has one way to say it only")
def test_it_changes_nothing_that_torch_can_be_asked(parent: str) -> None:
    torch.get_num_threads()
    gather()
    torch.backends.fp32_precision = parent
    try:
        before = readings()
        with redirect_stdout(io.StringIO()):
            torchturbo.report()
        assert readings() == before
        with turbo("exact") as active:
            before = readings()
            active_report = gather(active)
            assert readings() == before
            assert active_report.about is not None
    finally:
        torch.backends.fp32_precision = "none"


def test_the_readings_above_would_notice() -> None:
    before = readings()
    assert len(before) > 50
    for change in (lambda on: setattr(torch.backends.cudnn, "benchmark", on), torch.set_anomaly_enabled):
        change(True)
        try:
            assert readings() != before
        finally:
            change(False)


ALONE = """
import sys
import torch
before = set(sys.modules)
import torchturbo
from torchturbo._report import gather
assert not {"rich", "click", "pynvml"} & (set(sys.modules) - before), "importing torchturbo"
report = gather()
report.to_json(), report._repr_html_()
assert not {"rich", "click", "IPython"} & set(sys.modules), "gathering"
str(report)
assert "rich" in sys.modules and "click" not in sys.modules, "printing"
import torchturbo.cli
assert "click" in sys.modules
assert not torch.cuda.is_initialized()
"""


def test_what_it_does_not_need_is_not_imported_and_cuda_is_not_started(fresh_python: Fresh) -> None:
    done = fresh_python(ALONE)
    assert done.returncode == 0, done.stderr


def test_it_asks_a_driver_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: Any) -> None:
        raise AssertionError("CUDA was started")

    monkeypatch.setitem(sys.modules, "pynvml", Driver().module())
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(hardware, "_real", None)
    monkeypatch.setattr(hardware, "_real_is_final", False)
    monkeypatch.setattr(hardware, "known", None)
    for name in ("init", "_lazy_init", "device_count", "get_device_properties", "get_device_name", "is_available"):
        monkeypatch.setattr(torch.cuda, name, start)
    report = gather()
    (gpu,) = report.hardware.gpus
    (reading,) = report.readings
    assert gpu.index == reading.index == 0
    assert reading.temperature is not None


ON_A_GPU = """
import torch
from torchturbo._report import gather
report = gather()
assert report.hardware.gpus and len(report.readings) == len(report.hardware.gpus), report.hardware.reasons
assert "GPU 0: " + report.hardware.gpus[0].name in str(report)
assert not torch.cuda.is_initialized()
assert not torch._C._cuda_hasPrimaryContext(0)
"""


@pytest.mark.gpu
def test_on_a_real_gpu_it_reads_the_driver_and_starts_no_context() -> None:
    subprocess.run([sys.executable, "-c", ON_A_GPU], check=True)


def test_it_costs_little() -> None:
    gather()
    best = min(_seconds(gather) for _ in range(5))
    assert best < 0.05, "a report that is printed every epoch must not be felt"


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
