"""What the CPU says of itself, on every kind of system, this one included."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from torchturbo.hardware import Cpu, cpu

XEON = "fpu avx avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_fp16 amx_tile amx_bf16 amx_int8"
GRANITE = f"{XEON} amx_fp16"
EPYC_GENOA = "fpu avx avx2 avx512f avx512bw avx512_bf16"
EPYC_MILAN = "fpu sse avx avx2 f16c"
CASCADE_LAKE = "fpu avx avx2 f16c avx512f avx512bw avx512_vnni"
GRAVITON3 = "fp asimd fphp asimdhp sve svebf16 i8mm bf16"
GRAVITON2 = "fp asimd fphp asimdhp"


def x86(name: str, flags: str) -> str:
    one = f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\npower management:\n"
    return f"{one}\n{one.replace(name, 'the second core')}\n"


def arm(features: str) -> str:
    return f"processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: {features}\nCPU part\t: 0xd40\n\n"


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``/proc/cpuinfo`` to write, and a torch that says nothing."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_CPUINFO", str(file))
    tell(monkeypatch, {})
    return file


def tell(monkeypatch: pytest.MonkeyPatch, words: Mapping[str, object]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: words, raising=False)


@pytest.mark.parametrize(
    ("text", "avx512", "bf16", "fp16", "amx", "amx_fp16"),
    [
        (x86("some CPU", XEON), True, True, True, True, False),
        (x86("some CPU", GRANITE), True, True, True, True, True),
        (x86("some CPU", EPYC_GENOA), True, True, False, False, False),
        (x86("some CPU", EPYC_MILAN), False, False, False, False, False),
        (x86("some CPU", CASCADE_LAKE), True, False, False, False, False),
        (arm(GRAVITON3), False, True, True, False, False),
        (arm(GRAVITON2), False, False, True, False, False),
        (arm("fp asimd fphp"), False, False, False, False, False),
        (arm("fp asimd svebf16"), False, True, False, False, False),
    ],
)
def test_instructions_are_found_in_cpuinfo(
    described: Path, text: str, avx512: bool, bf16: bool, fp16: bool, amx: bool, amx_fp16: bool
) -> None:
    described.write_text(text)
    found = cpu.ask()
    assert (found.avx512, found.bf16, found.fp16, found.amx) == (avx512, bf16, fp16, amx)
    assert found.amx_fp16 is amx_fp16


@pytest.mark.parametrize(
    ("told", "avx512", "bf16", "fp16", "amx"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True, True, False, False),
        (
            {"avx512_f": True, "avx512_bf16": False, "amx_tile": True, "amx_bf16": True},
            True,
            True,
            False,
            True,
        ),
        ({"avx512_fp16": True}, False, False, True, False),
        (
            {"architecture": "arm64", "bf16": True, "fp16_arith": True, "sve_max_length": 16},
            False,
            True,
            True,
            False,
        ),
        ({"bf16": 1, "fp16_arith": False}, False, False, False, False),
    ],
)
def test_where_there_is_no_cpuinfo_torch_is_believed(
    described: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, object],
    avx512: bool,
    bf16: bool,
    fp16: bool,
    amx: bool,
) -> None:
    tell(monkeypatch, told)
    found = cpu.ask()
    assert (found.avx512, found.bf16, found.fp16, found.amx) == (avx512, bf16, fp16, amx)


def test_a_torch_without_a_table_is_asked_word_by_word(described: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for function in cpu._TORCH_ASKS:
        monkeypatch.setattr(torch.cpu, function, lambda: True, raising=False)
    assert (cpu.ask().avx512, cpu.ask().bf16, cpu.ask().amx, cpu.ask().amx_fp16) == (True, True, True, True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not cpu.ask().bf16
    for function in cpu._TORCH_ASKS:
        monkeypatch.delattr(torch.cpu, function)
    assert (cpu.ask().avx512, cpu.ask().bf16, cpu.ask().amx) == (False, False, False)


def test_the_name_comes_from_the_first_that_tells_one(described: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.ask().name == platform.machine()
    tell(monkeypatch, {"cpu_name": "Apple M1 Max"})
    assert cpu.ask().name == "Apple M1 Max"
    described.write_text(x86("AMD EPYC 9654: the large one", EPYC_GENOA))
    assert cpu.ask().name == "AMD EPYC 9654: the large one"


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert cpu.ask().cores == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert cpu.ask().cores == 10
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.ask().cores == 1


@pytest.mark.matrix
def test_this_cpu_is_what_this_torch_says_it_is() -> None:
    found = cpu.ask()
    assert isinstance(found, Cpu)
    assert found.name
    assert found.cores >= 1
    assert found.capability == torch.backends.cpu.get_cpu_capability()
    for function, word in cpu._TORCH_ASKS.items():
        asks = getattr(torch.cpu, function, None)
        if asks is not None and word == "avx512bf16" and asks():
            assert found.bf16
        if asks is not None and word == "amxtile":
            assert found.amx is asks()
        if asks is not None and word == "avx512f":
            assert found.avx512 is asks()


@pytest.mark.matrix
@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo is Linux's")
def test_torch_alone_and_cpuinfo_alone_agree_on_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cpu.ask()
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "_told_by_torch", dict)
        by_cpuinfo = cpu.ask()
    monkeypatch.setattr(cpu, "_CPUINFO", str(tmp_path / "nothing"))
    by_torch = cpu.ask()
    assert by_cpuinfo == whole
    assert (by_torch.avx512, by_torch.bf16, by_torch.amx) == (whole.avx512, whole.bf16, whole.amx)
