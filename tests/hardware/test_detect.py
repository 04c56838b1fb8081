"""`detect` looks once, starts nothing, and gives the same object ever after."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.fresh import Fresh
from tests.hardware.driver import Driver
from torchturbo import hardware
from torchturbo.hardware import Hardware, cuda

ROOT = Path(__file__).parents[2]


@pytest.mark.matrix
def test_this_machine_is_described() -> None:
    here = hardware.detect()
    assert isinstance(here, Hardware)
    assert here.build.torch == torch.__version__
    assert here.build.mkldnn is torch._C._has_mkldnn
    assert (here.build.cuda, here.build.hip) == (torch.version.cuda, torch.version.hip)
    assert here.build.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert here.build.platform.split()[0]
    assert here.gpus or here.reasons
    assert len(hardware.readings()) == len(here.gpus)
    assert all(reason.endswith(".") for reason in here.reasons)


@pytest.mark.matrix
def test_cudnns_version_is_torchs_own() -> None:
    assert hardware.detect().build.cudnn == torch.backends.cudnn.version()  # type: ignore[no-untyped-call]


def test_cudnn_is_asked_of_the_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cudnn", SimpleNamespace(getVersionInt=lambda: 91002), raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    assert hardware._build().cudnn == 91002
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert hardware._build().cudnn is None
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delattr(torch._C, "_cudnn")
    assert hardware._build().cudnn is None


def test_it_looks_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hardware.detect()
    assert first.device_type == "cuda"

    def look_again() -> Hardware:
        raise AssertionError("it looked again")

    monkeypatch.setattr(hardware, "_look", look_again)
    driver.cards = []
    assert hardware.detect() is first


def test_many_threads_look_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    together = threading.Barrier(8)
    ask = hardware._ask

    def counting() -> tuple[Hardware, bool]:
        asked.append(1)
        return ask()

    def detect(_: int) -> Hardware:
        together.wait(timeout=30)
        return hardware.detect()

    monkeypatch.setattr(hardware, "_ask", counting)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detect, range(8)))
    assert len(asked) == 1
    assert all(each is found[0] for each in found)


def test_what_could_not_be_told_is_asked_once_more_when_cuda_has_started(
    driver: Driver, libcuda: list[str], start_cuda: Callable[..., None]
) -> None:
    driver.broken = "NVML Shared Library Not Found"
    libcuda.append("libcuda.so.1")
    before = hardware.detect()
    assert before.gpus == ()
    assert hardware.detect() is before
    start_cuda(SimpleNamespace(name="Orin", major=8, minor=7, total_memory=64, uuid="0"))
    after = hardware.detect()
    assert [gpu.name for gpu in after.gpus] == ["Orin"]
    assert hardware.detect() is after


def test_what_was_certain_is_not_asked_again_when_cuda_has_started(
    driver: Driver, start_cuda: Callable[..., None]
) -> None:
    before = hardware.detect()
    start_cuda()
    assert hardware.detect() is before


def test_a_thread_that_waited_takes_what_the_other_found(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lock:
        """The real one, but while this thread waits for it, another finds the machine."""

        def __enter__(self) -> None:
            hardware.known = found

        def __exit__(self, *error: object) -> None:
            assert error == (None, None, None)

    found = hardware._ask()[0]
    monkeypatch.setattr(hardware, "_lock", Lock())
    assert hardware.detect() is found


def test_readings_are_the_drivers(driver: Driver) -> None:
    assert [reading.power for reading in hardware.readings()] == [312.5]


# A machine with a GPU on which every way of torch to start CUDA ends the process.
TRAPPED = """
import sys, torch, warnings
warnings.simplefilter("error")
from tests.hardware.driver import Driver
def trap(*arguments, **options):
    print("CUDA was started")
    sys.exit(3)
for name in ("_lazy_init", "init", "is_available", "device_count", "current_device", "get_device_properties",
             "get_device_capability", "get_device_name", "mem_get_info"):
    assert hasattr(torch.cuda, name), name
    setattr(torch.cuda, name, trap)
for name in ("_cuda_init", "_cuda_getDeviceCount"):
    setattr(torch._C, name, trap)
sys.modules["pynvml"] = Driver().module()
torch.version.cuda, torch.version.hip = "12.8", None
import torchturbo.hardware as hardware
{act}
machine = hardware.detect()
assert machine.gpus[0].capability == (8, 0), machine
assert hardware.readings()[0].power == 312.5
assert not torch.cuda.is_initialized()
print("all is well")
"""

IMPORTED = """
import sys
sys.modules["pynvml"] = None  # torch imports it too, if it can
import torch
del sys.modules["pynvml"]
before = set(sys.modules)
import torchturbo.hardware as hardware
print(sorted({"pynvml", "rich", "click", "matplotlib"} & (set(sys.modules) - before)))
hardware.detect()
print("pynvml" in sys.modules)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.matrix
def test_no_cuda_is_started(fresh_python: Fresh) -> None:
    done = fresh_python(TRAPPED.format(act=""))
    assert (done.stdout, done.stderr, done.returncode) == ("all is well\n", "", 0)


@pytest.mark.parametrize(
    "careless",
    [
        "hardware.cuda.connect = lambda stack: torch.cuda.get_device_capability(0)",
        "hardware._cudnn = lambda: torch.cuda.is_available()",
    ],
)
def test_the_trap_catches_whoever_starts_it(careless: str, fresh_python: Fresh) -> None:
    done = fresh_python(TRAPPED.format(act=careless))
    assert (done.stdout, done.returncode) == ("CUDA was started\n", 3), done.stderr


@pytest.mark.matrix
def test_importing_brings_no_pynvml_and_looking_does() -> None:
    pytest.importorskip("pynvml")
    done = python(IMPORTED)
    assert (done.stdout, done.stderr) == ("[]\nTrue\n", "")


def test_a_machine_can_be_asked_for_its_gpus_alone(driver: Driver) -> None:
    assert cuda.ask().gpus == hardware.detect().gpus
