"""`torchturbo doctor`: each check finds what it is for, on machines and in environments that are not here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Run
from tests.cli.surroundings import HEALTHY, here
from tests.hardware.driver import GIB, Card, Driver
from torchturbo import _doctor, hardware
from torchturbo._doctor import examine
from torchturbo._doctor.here import CHECKS
from torchturbo._doctor.surroundings import asked, boards, look_around
from torchturbo._environment import Found
from torchturbo._report import advice
from torchturbo._sources import read
from torchturbo.hardware import Reading
from torchturbo.testing import MACHINES


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of this machine has a say."""
    for name in ("CXX", "CC", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_healthy_machine_has_no_problem(machine: str) -> None:
    assert examine(here(machine)).problems == ()


# --------------------------------------------------------------------------------------------------- the driver

Driven = Callable[..., Driver]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    """Puts a driver beneath a torch built for some CUDA, or for none."""
    monkeypatch.setattr(hardware, "_real", None)
    monkeypatch.setattr(hardware, "known", None)
    monkeypatch.setattr(torch.version, "hip", None)

    def put(driver: Driver, cuda: str | None = "12.8") -> Driver:
        monkeypatch.setitem(sys.modules, "pynvml", driver.module())
        monkeypatch.setattr(torch.version, "cuda", cuda)
        return driver

    return put


def found_here(**around: Any) -> dict[str, tuple[str, str]]:
    """The problems of the machine beneath, by check."""
    machine = hardware._ask()[0]
    return {f.check: (f.what, f.fix) for f in examine(here(machine, around=around)).problems}


def test_a_torch_without_cuda_where_nvml_finds_a_gpu(driven: Driven) -> None:
    driven(Driver(), cuda=None)
    ((name, (what, fix)),) = found_here().items()
    assert name == "cpu_only_torch"
    assert "has no CUDA, so torch cannot use what is here: NVIDIA A100-SXM4-80GB" in what
    assert "`pip uninstall torch`" in fix


def test_a_driver_older_than_the_runtime(driven: Driven) -> None:
    driven(Driver(version="470.82.01", cuda=11040))
    ((name, (what, fix)),) = found_here().items()
    assert name == "driver_is_too_old"
    assert "470.82.01 runs CUDA 11.4 at most, and this torch is built for CUDA 12.8" in what
    assert "CUDA 12 needs 525.60 or newer" in fix


def test_a_board_that_no_driver_answers_for(driven: Driven) -> None:
    driven(Driver(broken="NVML Shared Library Not Found"))
    assert found_here() == {}, "a machine without a GPU needs no driver"
    what, fix = found_here(boards=2)["driver_does_not_answer"]
    assert what.startswith("2 NVIDIA GPUs on the PCI bus, and no driver: NVIDIA's NVML does not answer")
    assert "`docker run --gpus all ...`" in fix


def test_a_missing_package(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    driven(Driver())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert found_here()["nvml_has_no_package"][1] == "`pip install nvidia-ml-py`"


def test_gpus_that_are_lost_hidden_or_without_a_slice(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    driven(Driver([Card(), None]))
    assert found_here()["gpu_is_lost"][0] == "NVML counts GPU 1, but cannot open it."
    driven(Driver([Card(slices=[None])]))
    what, fix = found_here()["gpu_has_no_slice"]
    assert "In MIG mode without a slice" in what
    assert "`sudo nvidia-smi mig -cgi ID -C`" in fix
    driven(Driver())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    what, fix = found_here()["gpus_are_hidden"]
    assert "CUDA_VISIBLE_DEVICES='7' hides what is here" in what
    assert fix.startswith("`unset CUDA_VISIBLE_DEVICES`")


def test_a_gpu_as_the_driver_reads_it(driven: Driven) -> None:
    driven(Driver([Card(used=61 * GIB, throttle=0x40 | 0x02)]))
    machine = hardware._ask()[0]
    found = examine(here(machine, readings=hardware.cuda.readings()))
    told = {f.check: f for f in found.findings}
    assert told["gpu_is_in_use"].what == "Other processes use GPU 0: 61 GiB of 80 GiB are taken, and it is 97 % busy."
    assert "heat: the hardware slows it down" in told["gpu_is_held_down"].what
    assert "nvidia-smi -q -d PERFORMANCE" in told["gpu_is_held_down"].fix
    assert "fixed value (1095 of 1410 MHz now)" in told["gpu_has_fixed_clocks"].what
    assert {f.check for f in found.problems} == {"gpu_is_in_use", "gpu_is_held_down"}


# ---------------------------------------------------------------------------------------------- each of the rest

DETERMINISTIC = read({"TORCHTURBO_DETERMINISTIC": "1"}, None)
TWICE = """
cudnn_benchmark = false
num_threads = 4
"""


@dataclass(frozen=True)
class Case:
    """Where a check finds something, and what it says."""

    machine: str
    says: str
    helps: str
    rows: dict[str, Any] = field(default_factory=dict)
    around: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


OVERRIDE = Found("NVIDIA_TF32_OVERRIDE", "0", "", "", "torch allows TF32, and this forbids it: unset it to have TF32")
CASES = {
    "nvml_is_the_wrong_package": Case(
        *("A100", "pynvml 11.5.3 is", "pip uninstall -y pynvml"),
        around={"installed": {"pynvml": "11.5.3", "triton": "3"}},
    ),
    "gpu_is_in_use": Case(
        *("A100", "30 GiB of 80 GiB are taken.", "CUDA_VISIBLE_DEVICES="),
        changes={"readings": (Reading(0, 0, 30 * GIB),)},
    ),
    "gpu_has_fixed_clocks": Case(
        *("A100", "fixed value.", "--reset-applications-clocks"),
        changes={"readings": (Reading(0, throttle=("application clocks: set",)),)},
    ),
    "no_compiler_for_compile": Case(
        *("cpu", "C++ compiler 'c+' (CXX)", "apt install g++"),
        around={"has_cxx": False, "cxx": "c+", "environ": {"CXX": "c+"}},
    ),
    "threads_lie_idle": Case(
        *("cpu", "1 thread of 16 cores (OMP_NUM_THREADS=1)", "`unset OMP_NUM_THREADS`"),
        rows={"num_threads": {"now": 1}},
        around={"environ": {"OMP_NUM_THREADS": "1"}},
    ),
    "threads_exceed_the_quota": Case(
        *("cpu", "16 threads, and this container may keep 3.5 cores", "OMP_NUM_THREADS=4`"), around={"quota": 3.5}
    ),
    "little_shared_memory": Case("cpu", "64 MiB left", "--shm-size=8g", around={"shared_memory": 64 * 1024**2}),
    "loaders_have_no_workers": Case("cpu", "beside 16 cores", "num_workers=8)"),
    "switched_off": Case(
        *("cpu", "TORCHTURBO_DISABLE=1: blocks", "`unset TORCHTURBO_DISABLE`"),
        around={"sources": read({"TORCHTURBO_DISABLE": "1"}, None)},
    ),
    "asked_in_vain": Case(
        *("cpu", "asks for cudnn_benchmark=True, which is left out here: cuDNN runs", "acts where a machine has it"),
        around={"sources": read({"TORCHTURBO_CUDNN_BENCHMARK": "1"}, None)},
    ),
    "deterministic_without_a_workspace": Case(
        "A100",
        "TORCHTURBO_DETERMINISTIC asks for deterministic, and CUBLAS_WORKSPACE_CONFIG is not set",
        "export CUBLAS_WORKSPACE_CONFIG=:4096:8",
        around={"sources": DETERMINISTIC},
    ),
    "tf32_is_unused": Case("A100", "matmul_precision is highest", 'turbo("fast")'),
    "more_threads_than_cores": Case("cpu", "17 threads", "num_threads=16", rows={"num_threads": {"now": 17}}),
    "environment_overrules": Case("A100", "unset it to have TF32", "", changes={"environment": (OVERRIDE,)}),
}
ELSEWHERE = {
    *("cpu_only_torch", "driver_is_too_old", "driver_does_not_answer", "nvml_has_no_package", "gpu_is_lost"),
    *("gpus_are_hidden", "gpu_has_no_slice", "what_is_asked_is_refused", "asked_twice"),
}
"""What other tests of this file hold."""


def test_every_check_has_its_case() -> None:
    assert {check.name for check in CHECKS} <= set(CASES) | ELSEWHERE
    assert all(check.about and check.about.endswith(".") for check in CHECKS)
    names = [check.name for check in (*CHECKS, *advice.CHECKS)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", CASES)
def test_a_check_finds_what_it_is_for(name: str) -> None:
    case = CASES[name]
    facts = here(case.machine, case.rows, case.around, **case.changes)
    (finding,) = [found for found in examine(facts).findings if found.check == name]
    assert case.says in finding.what
    assert case.helps in finding.fix


@pytest.mark.parametrize(
    ("name", "machine", "rows", "around", "changes"),
    [
        ("gpu_is_in_use", "A100", {}, {"cuda_started": True}, {"readings": (Reading(0, 99, 60 * GIB),)}),
        ("gpu_is_in_use", "A100", {}, {}, {"readings": (Reading(0, 3, 1 * GIB), Reading(1))}),
        ("no_compiler_for_compile", "A100", {}, {"has_cxx": False}, {}),
        ("no_compiler_for_compile", "apple", {}, {"has_headers": False, "has_cc": False}, {}),
        ("threads_lie_idle", "cpu", {"num_threads": {"now": 8}}, {}, {}),
        ("threads_lie_idle", "cpu", {"num_threads": {"now": 2}}, {"environ": {"LOCAL_WORLD_SIZE": "4"}}, {}),
        ("threads_lie_idle", "cpu", {"num_threads": {"now": 1}}, {"quota": 2.0}, {}),
        ("little_shared_memory", "cpu", {}, {"shared_memory": None}, {}),
        ("deterministic_without_a_workspace", "cpu", {}, {"sources": DETERMINISTIC}, {}),
        (
            *("deterministic_without_a_workspace", "A100", {}),
            {"sources": DETERMINISTIC, "environ": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}},
            {},
        ),
        ("loaders_have_no_workers", "cpu", {}, {"quota": 0.5}, {}),
        ("asked_in_vain", "A100", {}, {"sources": read({"TORCHTURBO_CUDNN_BENCHMARK": "1"}, None)}, {}),
    ],
)
def test_and_not_a_step_beyond(name: str, machine: str, rows: Any, around: Any, changes: Any) -> None:
    assert [f for f in examine(here(machine, rows, around, **changes)).findings if f.check == name] == []


def test_one_thread_that_somebody_asked_for_is_told_even_of_two_cores() -> None:
    rows = {"num_threads": {"now": 1}}
    for environ, found in (({}, []), ({"MKL_NUM_THREADS": "1"}, ["threads_lie_idle"])):
        problems = examine(here(rows=rows, around={"quota": 2.0, "environ": environ})).problems
        assert [problem.check for problem in problems] == found


def test_what_compiling_on_a_gpu_needs() -> None:
    around = {"installed": {}, "has_cc": False, "has_headers": False}
    found = [f for f in examine(here("A100", around=around)).problems if f.check == "no_compiler_for_compile"]
    assert [f.what.split(",")[0] for f in found] == [
        "Triton is not installed",
        "There is no C compiler",
        "Python's headers (Python.h of 3.11.9) are not here",
    ]


def test_a_newer_name_of_the_wrong_package() -> None:
    (finding,) = examine(here("A100", around={"installed": {"pynvml": "13.0.1", "triton": "3"}})).problems
    assert "torch warns of it" in finding.what


# ---------------------------------------------------------------------------------------------------- what is asked


def test_each_thing_that_is_refused_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "torchturbo.toml").write_text("num_treads = 4\n")
    environ = {
        "TORCHTURBO_SED": "1",
        "TORCHTURBO_TF32": "perhaps",
        "TORCHTURBO_PROFILE": "fats",
        "TORCHTURBO_SEED": "3",
    }
    sources, mistakes = asked(environ, tmp_path)
    assert sources.environment["seed"].value == 3
    found = examine(here(around={"sources": sources, "mistakes": mistakes})).problems
    assert [f.check for f in found] == ["what_is_asked_is_refused"] * 4
    assert [f.what.split(":")[0] for f in found] == [
        "torchturbo.toml",
        "TORCHTURBO_PROFILE",
        "TORCHTURBO_SED",
        "TORCHTURBO_TF32",
    ]
    assert "did you mean 'num_threads'" in found[0].what
    assert found[2].fix.startswith("`unset TORCHTURBO_SED`")


def test_a_variable_that_beats_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "torchturbo.toml").write_text(TWICE)
    sources, mistakes = asked({"TORCHTURBO_NUM_THREADS": "2", "TORCHTURBO_CUDNN_BENCHMARK": "0"}, tmp_path)
    assert mistakes == ()
    (finding,) = [f for f in examine(here(around={"sources": sources})).advice if f.check == "asked_twice"]
    assert finding.what == "TORCHTURBO_NUM_THREADS (num_threads=2) beats torchturbo.toml:3 (num_threads=4)."


# ------------------------------------------------------------------------------------------------------ the facts


def test_what_is_around_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("TORCHTURBO_NUM_TREADS", "1")
    around = look_around()
    assert (around.cxx, around.has_cxx, around.has_cc) == ("no-such-compiler", False, False)
    assert "nvidia-ml-py" in around.installed
    assert [mistake.variable for mistake in around.mistakes] == ["TORCHTURBO_NUM_TREADS"]
    assert not around.cuda_started
    if sys.platform == "linux":
        assert isinstance(around.shared_memory, int)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_boards_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        write(tmp_path / name / "vendor", vendor + "\n")
        write(tmp_path / name / "class", kind + "\n")
    (tmp_path / "d").mkdir()
    assert boards(tmp_path) == 1
    assert boards(tmp_path / "nowhere") == 0


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the command find these facts."""

    def put(*args: Any, **kwargs: Any) -> None:
        facts = here(*args, **kwargs)
        monkeypatch.setattr(_doctor, "gather", lambda: facts.report)
        monkeypatch.setattr(_doctor, "look_around", lambda: facts.around)

    return put


def test_it_ends_with_0_where_there_is_advice_alone(typed: Run, machine: Callable[..., None]) -> None:
    machine("A100")
    code, out, err = typed("doctor")
    assert (code, err) == (0, "")
    assert "Problems" not in out
    assert out.endswith(" checks: no problems, 3 pieces of advice.\n")


def test_it_ends_with_1_and_says_what_to_do(typed: Run, machine: Callable[..., None]) -> None:
    machine("cpu", around={"shared_memory": 0})
    code, out, err = typed("doctor")
    assert (code, err) == (1, "")
    assert "\nProblems\n  little shared memory\n    /dev/shm has 0 B left." in out
    assert "\n    -> `docker run --shm-size=8g ...`" in out
    assert out.endswith("checks: 1 problem, 1 piece of advice.\n")
    code, out, _ = typed("doctor", "--json")
    told = json.loads(out)
    assert code == 1
    assert told["problems"][0]["check"] == "little_shared_memory"
    assert told["problems"][0].keys() == {"check", "severity", "what", "fix"}
    assert set(told["checks"]) >= set(CASES)


def test_healthy_is_what_the_cases_start_from() -> None:
    assert replace(HEALTHY) == here().around
