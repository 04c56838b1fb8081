"""Which GPUs torch can use, by how it was built, what the driver says, and whether CUDA has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from tests.hardware.driver import GIB, Card, Driver, slice_of
from torchturbo.hardware import Gpu, Reading, cuda

A, B = "GPU-aaaa0000-1111", "GPU-aabb0000-2222"
Start = Callable[..., None]


@pytest.mark.parametrize(
    ("system", "library", "final"),
    [
        ("posix", None, True),
        ("posix", "libcuda.so.1", False),
        ("posix", "nvcuda.dll", True),
        ("nt", "nvcuda.dll", False),
        ("nt", None, True),
    ],
)
def test_without_nvml_cuda_may_still_start_if_it_is_installed(
    driver: Driver,
    libcuda: list[str],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    library: str | None,
    final: bool,
) -> None:
    driver.broken = "NVML Shared Library Not Found"
    libcuda += [library] if library else []
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        found = cuda.ask()
    assert found.gpus == ()
    assert found.final is final


class TestDriverTooOld:
    def test_torch_cannot_use_a_gpu_whose_driver_is_too_old(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        found = cuda.ask()
        assert found.gpus == ()
        assert found.reasons == (
            "The NVIDIA driver 570.86.15 runs CUDA 12.8 at most, and this torch is built for CUDA 13.0, so "
            "torch cannot use what is here: NVIDIA A100-SXM4-80GB.",
        )
        assert not found.final

    def test_it_is_not_blamed_for_what_the_environment_hides(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        (reason,) = cuda.ask().reasons
        assert reason.startswith("CUDA_VISIBLE_DEVICES=''")

    @pytest.mark.parametrize("built_for", ["12.0", "12.9", "11.8"])
    def test_an_older_or_equal_major_version_runs(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch, built_for: str
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", built_for)
        assert len(cuda.ask().gpus) == 1

    def test_a_driver_that_does_not_say_is_believed(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        driver.refused.add("nvmlSystemGetCudaDriverVersion_v2")
        assert len(cuda.ask().gpus) == 1


class TestTorchWithoutCuda:
    @pytest.fixture(autouse=True)
    def without_cuda(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")

    def test_the_gpu_that_torch_cannot_use_is_named(self) -> None:
        found = cuda.ask()
        assert found.gpus == ()
        assert found.reasons == (
            "This torch build (2.13.0+cpu) has no CUDA, so torch cannot use what is here: NVIDIA A100-SXM4-80GB.",
        )
        assert found.final

    def test_there_may_be_none(self, driver: Driver) -> None:
        driver.cards = [None]
        expected = "This torch build (2.13.0+cpu) has no CUDA, and NVIDIA's driver knows of no GPU here."
        assert cuda.ask().reasons == (expected,)

    def test_there_may_be_no_driver(self, driver: Driver) -> None:
        driver.broken = "NVML Shared Library Not Found"
        build, nvml = cuda.ask().reasons
        assert build == "This torch build (2.13.0+cpu) has no CUDA."
        assert "NVML Shared Library Not Found" in nvml

    def test_nothing_is_read(self) -> None:
        assert cuda.readings() == ()


class TestStarted:
    """Once torch has started CUDA, torch knows best."""

    @pytest.fixture(autouse=True)
    def started(self, driver: Driver, start_cuda: Start) -> None:
        driver.cards = [
            Card(uuid=A, used=1),
            Card(uuid=B, used=2, slices=[slice_of("MIG 1g.5gb", "MIG-cc00")]),
        ]
        start_cuda(
            SimpleNamespace(name="first", major=9, minor=0, total_memory=7, uuid="cc00"),
            SimpleNamespace(name="second", major=8, minor=9, total_memory=8, uuid=A.removeprefix("GPU-")),
            SimpleNamespace(name="third", major=7, minor=5, total_memory=9, uuid="nobody"),
            SimpleNamespace(name="fourth", major=7, minor=0, total_memory=10),
        )

    def test_its_devices_are_the_gpus(self, driver: Driver) -> None:
        found = cuda.ask()
        assert found.gpus == (
            Gpu(0, "first", (9, 0), 7, driver.version),
            Gpu(1, "second", (8, 9), 8, driver.version),
            Gpu(2, "third", (7, 5), 9, driver.version),
            Gpu(3, "fourth", (7, 0), 10, driver.version),
        )
        assert found.reasons == ()
        assert found.final

    def test_the_environment_no_longer_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert len(cuda.ask().gpus) == 4

    def test_readings_find_their_card_by_its_uuid(self) -> None:
        first, second, third, fourth = cuda.readings()
        assert (first.index, first.memory_used) == (0, 1 * GIB)
        assert (second.index, second.memory_used) == (1, 1)
        assert third == Reading(2)
        assert fourth == Reading(3)

    def test_nvml_may_be_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        found = cuda.ask()
        assert [gpu.driver for gpu in found.gpus] == [None] * 4
        assert "nvidia-ml-py" in found.reasons[0]
        assert found.final
        assert cuda.readings() == ()


class TestRocm:
    @pytest.fixture(autouse=True)
    def rocm(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.version, "hip", "6.4.43482")

    def test_it_is_said_to_be_unproven_and_not_asked_before_it_has_started(self, driver: Driver) -> None:
        driver.broken = "this must not be asked"
        found = cuda.ask()
        assert found.gpus == ()
        assert found.reasons[0] == (
            "This torch build is for AMD GPUs (ROCm 6.4.43482), on which torchturbo is unproven."
        )
        assert "started" in found.reasons[1]
        assert not found.final

    def test_its_gpus_are_listed_but_not_judged(self, start_cuda: Start) -> None:
        start_cuda(SimpleNamespace(name="AMD Instinct MI300X", major=9, minor=4, total_memory=192 * GIB))
        found = cuda.ask()
        assert found.gpus == (Gpu(0, "AMD Instinct MI300X", None, 192 * GIB, None),)
        assert not found.gpus[0].has_fp8
        assert len(found.reasons) == 1
        assert found.final

    def test_nothing_is_read(self) -> None:
        assert cuda.readings() == ()
