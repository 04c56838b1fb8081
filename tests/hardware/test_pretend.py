"""Pretended machines: true facts, in force while their blocks run, gone afterwards."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hardware.driver import Driver
from torchturbo import hardware
from torchturbo.errors import OptionValueError
from torchturbo.hardware import Hardware, detect
from torchturbo.testing import MACHINES, pretend_hardware

MIB = 1024**2


@pytest.mark.parametrize(
    ("name", "capability", "gigabytes", "tf32", "bf16", "fp16", "fp8"),
    [
        ("V100", (7, 0), 16, False, False, True, False),
        ("T4", (7, 5), 16, False, False, True, False),
        ("RTX 3090", (8, 6), 24, True, True, True, False),
        ("RTX 4090", (8, 9), 24, True, True, True, True),
        ("A100", (8, 0), 80, True, True, True, False),
        ("H100", (9, 0), 80, True, True, True, True),
        ("H200", (9, 0), 141, True, True, True, True),
        ("B200", (10, 0), 180, True, True, True, True),
    ],
)
def test_a_gpu_machine_has_the_facts_of_its_gpu(
    name: str, capability: tuple[int, int], gigabytes: int, tf32: bool, bf16: bool, fp16: bool, fp8: bool
) -> None:
    with pretend_hardware(name) as machine:
        (gpu,) = machine.gpus
        assert machine.device_type == "cuda"
        assert machine.build.cuda is not None
        assert machine.reasons == ()
        assert name in gpu.name
        assert gpu.capability == capability
        # What the driver counts in MiB is what the maker sells in GB, or up to 7 percent more or less.
        assert gpu.memory == pytest.approx(gigabytes * 1024 * MIB, rel=0.07)
        assert (machine.has_tf32, machine.has_bf16) == (tf32, bf16)
        assert (machine.has_fp16_tensor_cores, machine.has_fp8) == (fp16, fp8)


@pytest.mark.parametrize(
    ("name", "device", "bf16"),
    [
        ("cpu-bf16", "cpu", True),
        ("cpu", "cpu", False),
        ("apple", "mps", False),
        ("B580", "xpu", True),
        ("Max 1550", "xpu", True),
    ],
)
def test_a_machine_without_gpu_says_so(name: str, device: str, bf16: bool) -> None:
    with pretend_hardware(name) as machine:
        assert machine.gpus == ()
        assert machine.device_type == device
        assert machine.has_bf16 is bf16
        assert machine.build.cuda is None
        assert "has no CUDA" in machine.reasons[0]


def test_all_machines_are_known_by_name_and_differ() -> None:
    names = {"V100", "T4", "RTX 3090", "RTX 4090", "A100", "H100", "H200", "B200", "cpu-bf16", "cpu", "apple"} | {
        "B580",
        "Max 1550",
    }
    assert set(MACHINES) == names
    assert len(set(MACHINES.values())) == len(names)


def test_detect_gives_the_very_machine_and_then_the_real_one() -> None:
    real = detect()
    with pretend_hardware("T4") as machine:
        assert machine is MACHINES["T4"]
        assert detect() is machine
        assert detect() is detect()
    assert detect() is real


def test_any_hardware_can_be_pretended() -> None:
    two = dataclasses.replace(MACHINES["T4"], gpus=MACHINES["T4"].gpus * 2)
    with pretend_hardware(two):
        assert detect() is two


def test_nothing_is_asked_of_the_real_machine_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> tuple[Hardware, bool]:
        raise AssertionError("the real machine was asked")

    monkeypatch.setattr(hardware, "_ask", ask)
    with pretend_hardware("A100"):
        assert detect() is MACHINES["A100"]
    with pytest.raises(AssertionError, match="real machine"):
        detect()


def test_a_machine_found_meanwhile_is_not_lost(driver: Driver) -> None:
    real = detect()
    with pretend_hardware("cpu"):
        driver.cards = []
    assert detect() is real


def test_a_pretended_machine_cannot_be_read(driver: Driver) -> None:
    assert len(hardware.readings()) == 1
    with pretend_hardware("A100"):
        assert hardware.readings() == ()
    assert len(hardware.readings()) == 1


def test_an_error_inside_ends_it_and_is_the_one_seen() -> None:
    real = detect()
    with pytest.raises(RuntimeError, match="mine"), pretend_hardware("A100"):
        raise RuntimeError("mine")
    assert detect() is real


def test_it_holds_in_every_thread() -> None:
    seen: list[Hardware] = []
    with pretend_hardware("H100") as machine:
        thread = threading.Thread(target=lambda: seen.append(detect()))
        thread.start()
        thread.join(timeout=30)
    assert seen == [machine]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.sampled_from(sorted(MACHINES)), st.integers(0, 9)), max_size=30))
def test_the_newest_still_open_is_in_force_and_none_stays(steps: list[str | int]) -> None:
    real = detect()
    opened = []
    for step in steps:
        if isinstance(step, str):
            block = pretend_hardware(step)
            block.__enter__()
            opened.append((block, MACHINES[step]))
        elif opened:
            opened.pop(step % len(opened))[0].__exit__(None, None, None)
        assert detect() is (opened[-1][1] if opened else real)
    for block, _ in opened:
        block.__exit__(None, None, None)
    assert detect() is real
    assert hardware._stand_ins == []


def test_threads_that_open_and_close_at_once_leave_nothing() -> None:
    real = detect()
    wrong: list[Hardware] = []
    together = threading.Barrier(4)

    def work(name: str) -> None:
        together.wait(timeout=30)
        for _ in range(200):
            with pretend_hardware(name):
                if detect() is real:
                    wrong.append(detect())

    threads = [threading.Thread(target=work, args=(name,)) for name in ("T4", "A100", "cpu", "apple")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []
    assert detect() is real
    assert hardware._stand_ins == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("A10", "'A100'"),
        ("cpu-bf1", "did you mean 'cpu-bf16'"),
        ("Apple", "did you mean 'apple'"),
        ("rtx 4090", "'RTX 4090'"),
        ("abacus", "known: A100, B200"),
    ],
)
def test_an_unknown_name_names_the_near_ones(name: str, told: str) -> None:
    with pytest.raises(OptionValueError, match="There is no pretend machine") as raised:
        pretend_hardware(name)
    assert repr(name) in str(raised.value)
    assert told in str(raised.value)
