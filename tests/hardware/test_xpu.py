"""Intel's GPUs, of which there is none here: a torch that has them is made up."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from torchturbo import hardware
from torchturbo._plan import decide
from torchturbo._report import words
from torchturbo.hardware import Xpu, xpu
from torchturbo.profiles import PROFILES
from torchturbo.regions.autocast import autocast
from torchturbo.testing import MACHINES, pretend_hardware

B580 = MACHINES["B580"]


@pytest.fixture
def intel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A torch with one Intel GPU, which has started or has not."""
    properties = SimpleNamespace(
        name="Intel(R) Arc(TM) B580 Graphics",
        total_memory=12 * 1024**3,
        has_bfloat16_conversions=True,
        has_fp16=True,
        has_subgroup_matrix_multiply_accumulate=True,
        driver_version="1.6.33578",
    )
    made = SimpleNamespace(started=True, properties=properties)

    def asked(index: int) -> SimpleNamespace:
        assert made.started, "asking starts it"
        return properties

    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: made.started)
    monkeypatch.setattr(torch.xpu, "get_device_properties", asked)
    for name in ("known", "_real"):
        monkeypatch.setattr(hardware, name, None)
    monkeypatch.setattr(hardware, "_real_is_final", False)
    return made


def test_an_intel_gpu_is_described(intel: SimpleNamespace) -> None:
    found = xpu.ask()
    assert found.xpus == (Xpu(0, intel.properties.name, 12 * 1024**3, True, True, True, "1.6.33578"),)
    assert found.reasons == ("torchturbo is unproven on Intel GPUs.",)
    assert found.final


def test_what_this_torch_does_not_tell_is_none(intel: SimpleNamespace) -> None:
    del intel.properties.has_bfloat16_conversions
    assert xpu.ask().xpus[0].bf16 is None


def test_it_is_not_started_to_be_asked(intel: SimpleNamespace) -> None:
    intel.started = False
    found = xpu.ask()
    assert found.xpus == (Xpu(0, "Intel GPU"),)
    assert "once torch has started them, and it has not yet" in found.reasons[1]
    assert not found.final


def test_other_machines_have_none_and_do_not_miss_it() -> None:
    assert xpu.ask() == xpu.Found((), (), True)


def test_it_is_looked_at_again_once_it_has_started(intel: SimpleNamespace) -> None:
    intel.started = False
    before = hardware.detect()
    assert (before.device_type, before.has_bf16, hardware.detect()) == ("xpu", False, before)
    assert "once torch has started them" in str(autocast.refusal(before, "bf16"))
    intel.started = True
    after = hardware.detect()
    assert (after.device_type, after.has_bf16, after.name) == ("xpu", True, intel.properties.name)
    assert hardware.detect() is after


def test_autocast_goes_by_what_the_gpu_says() -> None:
    def refusal(value: str, **facts: bool) -> str | None:
        one = dataclasses.replace(B580.xpus[0], **facts)
        return autocast.refusal(dataclasses.replace(B580, xpus=(B580.xpus[0], one)), value)

    assert refusal("bf16") is refusal("fp16") is None
    assert refusal("bf16", bf16=False) == "Intel(R) Arc(TM) B580 Graphics does not compute bf16 itself"
    assert refusal("fp16", fp16=False) == "Intel(R) Arc(TM) B580 Graphics does not compute fp16 itself"


@pytest.mark.parametrize(
    ("machine", "device", "profile", "dtype"),
    [
        ("B580", "xpu", {}, torch.bfloat16),
        ("B580", "xpu", {"autocast": "fp16"}, torch.float16),
        ("Max 1550", "xpu", {}, torch.bfloat16),
        ("apple", "mps", {"autocast": "fp16"}, torch.float16),
        ("apple", "mps", {}, None),
        ("A100", "cuda", {}, torch.bfloat16),
        ("cpu-bf16", "cpu", {}, torch.bfloat16),
    ],
)
def test_autocast_is_put_on_the_device_that_work_runs_on(
    machine: str, device: str, profile: dict[str, object], dtype: torch.dtype | None
) -> None:
    from torchturbo import turbo
    from torchturbo.regions.autocast import DEVICE_TYPES

    with pretend_hardware(machine), turbo("fast", **profile) as active:  # type: ignore[arg-type]
        on = {each: torch.get_autocast_dtype(each) for each in DEVICE_TYPES if torch.is_autocast_enabled(each)}
        assert on == ({device: dtype} if dtype else {})
        assert (active.scaler is not None) == (dtype is torch.float16)
    assert not torch.is_autocast_enabled(device)


def test_nothing_of_nvidias_is_planned_for_it() -> None:
    plan = decide(PROFILES["max"], {"pin_memory": True, "num_workers": "auto"}, B580)
    assert [d.name for d in plan.decisions if d.refused is None] == ["autocast", "num_workers", "pin_memory"]


def test_the_report_has_a_line_for_it() -> None:
    told = [*words.machine(B580)]
    assert "XPU 0: Intel(R) Arc(TM) B580 Graphics, 11.3 GiB, driver 1.6.33578; has bf16, fp16, XMX" in told
    assert "XPU 0: Intel GPU" in [*words.machine(dataclasses.replace(B580, xpus=(Xpu(0, "Intel GPU"),)))]


def test_work_runs_on_nvidias_gpus_first() -> None:
    assert dataclasses.replace(B580, gpus=MACHINES["T4"].gpus).device_type == "cuda"
    assert dataclasses.replace(B580, mps=MACHINES["apple"].mps).device_type == "xpu"
