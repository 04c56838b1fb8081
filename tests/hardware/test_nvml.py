"""NVML's answers become facts; whatever it refuses is None or a sentence, and never an error."""

from __future__ import annotations

import inspect
import sys

import pytest
from contextlib2 import ExitStack

from tests.hardware.driver import GIB, Card, Driver, slice_of
from torchturbo.hardware import Gpu, Reading, cuda
from torchturbo.hardware._nvml import Nvml, connect

BUSY = Reading(
    index=0,
    utilization=97,
    memory_used=3 * GIB,
    power=312.5,
    temperature=61,
    clock=1095,
    max_clock=1410,
    throttle=(),
)


def test_the_pretended_module_offers_only_what_the_real_one_has() -> None:
    pynvml = pytest.importorskip("pynvml")
    functions = {name: each for name, each in vars(Driver).items() if name.startswith("nvml")}
    assert len(functions) > 15
    for name, pretended in functions.items():
        real = inspect.signature(getattr(pynvml, name))
        real.bind(*list(inspect.signature(pretended).parameters)[1:])
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
    assert issubclass(pynvml.NVMLError, Exception)


def test_a_gpu_is_described(driver: Driver) -> None:
    assert cuda.ask().gpus == (Gpu(0, "NVIDIA A100-SXM4-80GB", (8, 0), 80 * GIB, "570.86.15"),)


def test_a_gpu_is_read(driver: Driver) -> None:
    assert cuda.readings() == (BUSY,)


@pytest.mark.parametrize("act", [cuda.ask, cuda.readings])
def test_nvml_is_closed_again(driver: Driver, act: object) -> None:
    assert callable(act)
    act()
    assert driver.opened == 0


def test_a_failing_farewell_is_no_error(driver: Driver) -> None:
    driver.refused.add("nvmlShutdown")
    assert cuda.readings() == (BUSY,)
    assert driver.opened == 1


def test_old_versions_that_answer_in_bytes_are_understood(driver: Driver) -> None:
    driver.in_bytes = True
    (gpu,) = cuda.ask().gpus
    assert (gpu.name, gpu.driver) == ("NVIDIA A100-SXM4-80GB", "570.86.15")


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetCudaComputeCapability", "capability"),
        ("nvmlDeviceGetMemoryInfo", "memory"),
        ("nvmlSystemGetDriverVersion", "driver"),
    ],
)
def test_a_refused_fact_is_none_and_the_others_stay(driver: Driver, function: str, field: str) -> None:
    (whole,) = cuda.ask().gpus
    driver.refused.add(function)
    (gpu,) = cuda.ask().gpus
    differing = {name for name in Gpu.__slots__ if getattr(gpu, name) != getattr(whole, name)}
    assert differing == {field}
    assert getattr(gpu, field) is None


def test_a_gpu_without_a_name_is_still_a_gpu(driver: Driver) -> None:
    driver.refused.add("nvmlDeviceGetName")
    assert cuda.ask().gpus[0].name == "NVIDIA GPU"


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetMemoryInfo", "memory_used"),
        ("nvmlDeviceGetPowerUsage", "power"),
        ("nvmlDeviceGetTemperature", "temperature"),
        ("nvmlDeviceGetClockInfo", "clock"),
        ("nvmlDeviceGetMaxClockInfo", "max_clock"),
    ],
)
@pytest.mark.parametrize("how", ["refused", "absent"])
def test_a_reading_that_is_not_told_is_none_and_the_others_stay(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, function: str, field: str, how: str
) -> None:
    if how == "refused":
        driver.refused.add(function)
    else:
        monkeypatch.delattr(sys.modules["pynvml"], function)
    (reading,) = cuda.readings()
    differing = {name for name in Reading.__slots__ if getattr(reading, name) != getattr(BUSY, name)}
    assert differing == {field}
    assert getattr(reading, field) is None


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, ()),
        (0x1, ("idle",)),
        (0x2, ("application clocks",)),
        (0x4, ("power cap",)),
        (0x8 | 0x40, ("hardware slowdown", "heat: the hardware")),
        (0x10, ("sync boost",)),
        (0x20, ("heat: the driver",)),
        (0x80, ("power brake",)),
        (0x100, ("display",)),
        (0x200 | 0x400, ("board limit", "reliability")),
        (0x4 | 0x1000, ("power cap", "a reason newer than torchturbo (NVML's bit 0x1000)")),
    ],
)
def test_throttling_is_told_in_words(driver: Driver, bits: int, words: tuple[str, ...]) -> None:
    driver.cards = [Card(throttle=bits)]
    throttle = cuda.readings()[0].throttle
    assert throttle is not None
    assert len(throttle) == len(words)
    assert all(told.startswith(word) for told, word in zip(throttle, words, strict=True))


def test_throttling_is_asked_by_its_old_name_of_an_old_driver(driver: Driver) -> None:
    driver.cards = [Card(throttle=0x4)]
    expected = cuda.readings()[0].throttle
    driver.refused.add("nvmlDeviceGetCurrentClocksEventReasons")
    assert cuda.readings()[0].throttle == expected
    driver.refused.add("nvmlDeviceGetCurrentClocksThrottleReasons")
    assert cuda.readings()[0].throttle is None


def test_a_slice_tells_its_own_memory_and_its_boards_warmth(driver: Driver) -> None:
    driver.cards = [Card(slices=[None, slice_of("NVIDIA A100 MIG 1g.5gb", "MIG-1")], throttle=0x20)]
    (gpu,) = cuda.ask().gpus
    assert (gpu.name, gpu.capability, gpu.memory) == ("NVIDIA A100 MIG 1g.5gb", (8, 0), 5 * GIB)
    (reading,) = cuda.readings()
    assert (reading.memory_used, reading.temperature, reading.power) == (1 * GIB, 61, 312.5)
    assert reading.utilization is None
    assert reading.throttle == ("heat: the driver slows it down to cool it",)


def test_a_driver_that_does_not_answer_is_a_sentence(driver: Driver) -> None:
    driver.broken = "Driver Not Loaded"
    found = cuda.ask()
    assert found.gpus == ()
    assert found.reasons == (
        "NVIDIA's NVML does not answer (Driver Not Loaded), as where no NVIDIA driver is installed.",
    )
    assert cuda.readings() == ()


def test_a_missing_package_is_a_sentence(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = cuda.ask()
    assert found.gpus == ()
    assert found.reasons == ("NVIDIA's NVML cannot be asked: its Python package nvidia-ml-py is not installed.",)


def test_the_real_package_answers_or_says_why_not() -> None:
    with ExitStack() as stack:
        nvml = connect(stack)
        told = nvml if isinstance(nvml, str) else None
        if isinstance(nvml, Nvml):
            assert nvml.driver()
    assert told is None or (told.startswith("NVIDIA's NVML") and told.endswith("."))
