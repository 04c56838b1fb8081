"""Each variable: said with what it does, and what it contradicts at the very values that do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest

from torchturbo import _environment
from torchturbo._catalogue import OPTIONS
from torchturbo._environment import VARIABLES, Circumstances, Found, found
from torchturbo.testing import MACHINES

FRESH = {
    "matmul_precision": "highest",
    "cudnn_precision": "tf32",
    "cublas_workspace": None,
    "deterministic": False,
    "num_threads": 16,
}


def here(
    environ: Mapping[str, str],
    machine: str = "A100",
    *,
    before: Mapping[str, object] | None = None,
    cuda_started: bool = False,
    torch: tuple[int, int] = (2, 13),
    **now: object,
) -> Circumstances:
    """The circumstances of a fresh torch, but for what is given."""
    values = FRESH | now
    return Circumstances(environ, values, values | (before or {}), MACHINES[machine], cuda_started, torch)


def contradiction(name: str, circumstances: Circumstances) -> str | None:
    (of_it,) = (variable for variable in found(circumstances) if variable.name == name)
    return of_it.contradiction


def test_only_what_is_set_is_found_in_the_order_of_the_declarations() -> None:
    last, first = VARIABLES[-1].name, VARIABLES[0].name
    assert found(here({"HOME": "/root"})) == ()
    told = found(here({last: "x", "HOME": "/root", first: "1"}))
    assert told == (
        Found(first, "1", VARIABLES[0].does, VARIABLES[0].acts, None),
        Found(last, "x", VARIABLES[-1].does, VARIABLES[-1].acts, None),
    )


def test_an_empty_value_is_set_too() -> None:
    assert [v.name for v in found(here({"CUDA_VISIBLE_DEVICES": ""}))] == ["CUDA_VISIBLE_DEVICES"]


def test_each_is_declared_once_with_words_for_what_it_does_and_when() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    for variable in VARIABLES:
        assert variable.does
        assert variable.acts.startswith("read ")
        assert not variable.does.endswith(".")


def test_the_options_they_are_held_against_exist() -> None:
    assert set(FRESH) <= set(OPTIONS)


# ------------------------------------------------------------------------------------------------------- TF32


def test_nvidias_override_forbids_what_torch_allows() -> None:
    environ = {"NVIDIA_TF32_OVERRIDE": "0"}
    said = contradiction("NVIDIA_TF32_OVERRIDE", here(environ, matmul_precision="high"))
    assert (
        said
        == "torch allows TF32 (matmul_precision=high, cudnn_precision=tf32), and this forbids it: unset it to have TF32"
    )
    said = contradiction("NVIDIA_TF32_OVERRIDE", here(environ, matmul_precision="medium", cudnn_precision="ieee"))
    assert said is not None
    assert "(matmul_precision=medium)" in said


def test_nvidias_override_contradicts_nobody_where_there_is_no_tf32_or_none_wanted() -> None:
    environ = {"NVIDIA_TF32_OVERRIDE": "0"}
    assert contradiction("NVIDIA_TF32_OVERRIDE", here(environ, "T4", matmul_precision="high")) is None
    assert contradiction("NVIDIA_TF32_OVERRIDE", here(environ, cudnn_precision="ieee")) is None
    assert contradiction("NVIDIA_TF32_OVERRIDE", here({"NVIDIA_TF32_OVERRIDE": "1"}, matmul_precision="high")) is None


@pytest.mark.parametrize("value", ["0", "true", "", "yes"])
def test_torchs_override_acts_at_exactly_1(value: str) -> None:
    name = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    assert contradiction(name, here({name: value})) == "does nothing: only exactly 1 acts"


def test_torchs_override_that_did_not_last_is_told() -> None:
    name = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    assert "highest all the same" in str(contradiction(name, here({name: "1"})))
    assert contradiction(name, here({name: "1"}, matmul_precision="high")) is None


# ----------------------------------------------------------------------------------------------------- cuBLAS

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def test_a_workspace_that_a_block_sets_once_cuda_runs_may_come_too_late() -> None:
    late = here({WORKSPACE: ":16:8"}, cublas_workspace=":16:8", before={"cublas_workspace": None}, cuda_started=True)
    assert "set it before Python starts" in str(contradiction(WORKSPACE, late))
    assert contradiction(WORKSPACE, replace(late, cuda_started=False)) is None
    assert contradiction(WORKSPACE, replace(late, before=late.now)) is None


@pytest.mark.parametrize(("torch", "words"), [((2, 9), "torch 2.9 lets"), ((2, 10), "cuBLAS promises it")])
def test_other_workspaces_do_not_go_with_determinism(torch: tuple[int, int], words: str) -> None:
    for mode in (True, "warn"):
        other = here({WORKSPACE: ":8:8"}, deterministic=mode, torch=torch)
        assert words in str(contradiction(WORKSPACE, other))
        assert ":4096:8 or :16:8" in str(contradiction(WORKSPACE, other))
        for value in (":4096:8", ":16:8"):
            assert contradiction(WORKSPACE, replace(other, environ={WORKSPACE: value})) is None
    assert contradiction(WORKSPACE, here({WORKSPACE: ":8:8"}, torch=torch)) is None
    assert contradiction(WORKSPACE, here({WORKSPACE: ":8:8"}, "cpu", deterministic=True, torch=torch)) is None


# ---------------------------------------------------------------------------------------------------- compile


@pytest.mark.parametrize("name", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_compile_is_disabled_by_exactly_1(name: str) -> None:
    assert "torch.compile does nothing" in str(contradiction(name, here({name: "1"})))
    assert contradiction(name, here({name: "true"})) == "does nothing: only exactly 1 acts"
    assert contradiction(name, here({name: "0"})) is None
    assert contradiction(name, here({name: ""})) is None


# -------------------------------------------------------------------------------------------------- allocator

NEW, OLD = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"


def test_the_allocators_two_names_must_agree() -> None:
    assert "set one" in str(contradiction(NEW, here({NEW: "a", OLD: "b"})))
    assert contradiction(NEW, here({NEW: "a", OLD: "a"}, torch=(2, 9))) is None
    assert contradiction(OLD, here({NEW: "a", OLD: "b"})) is None


def test_the_allocators_newer_name_is_not_for_older_torch() -> None:
    assert OLD in str(contradiction(NEW, here({NEW: "a"}, torch=(2, 9))))
    assert contradiction(NEW, here({NEW: "a"}, torch=(2, 10))) is None


# ---------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_is_not_in_force_is_told(name: str) -> None:
    assert contradiction(name, here({name: "16"})) is None
    assert contradiction(name, here({name: "16,4"})) is None
    said = contradiction(name, here({name: "4"}, num_threads=2))
    assert said is not None
    assert "torch uses 2" in said
    assert "only 16 cores" in said


@pytest.mark.parametrize("value", ["", "many", "0", "-1", "4x", "\N{SUPERSCRIPT TWO}"])
def test_what_is_no_number_of_threads_does_nothing(value: str) -> None:
    name = "MKL_NUM_THREADS"
    assert contradiction(name, here({name: value})) == "does nothing: it is no number of threads"


def test_mkls_number_of_threads_wins() -> None:
    both = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "2"}
    assert contradiction("OMP_NUM_THREADS", here(both, num_threads=2)) == "MKL_NUM_THREADS=2 wins over it"
    assert contradiction("MKL_NUM_THREADS", here(both, num_threads=2)) is None
    alike = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    assert "torch uses 2" in str(contradiction("OMP_NUM_THREADS", here(alike, num_threads=2)))
    assert contradiction("OMP_NUM_THREADS", here(both, num_threads=4)) is None


# -------------------------------------------------------------------------------------------- speed, and rest


def test_waiting_for_each_kernel_hides_speed_where_there_are_kernels() -> None:
    name = "CUDA_LAUNCH_BLOCKING"
    assert "hides speed" in str(contradiction(name, here({name: "1"})))
    assert contradiction(name, here({name: "1"}, "cpu")) is None
    assert contradiction(name, here({name: "0"})) is None
    assert contradiction(name, here({name: ""})) is None


def test_kernels_below_what_the_cpu_has_are_told() -> None:
    name = "ATEN_CPU_CAPABILITY"
    modern = here({name: "avx2"}, "cpu-bf16")
    lowered = replace(modern.hardware, cpu=replace(modern.hardware.cpu, capability="AVX2"))
    said = contradiction(name, replace(modern, hardware=lowered))
    assert said is not None
    assert "AVX2" in said
    assert contradiction(name, modern) is None  # it was set too late: torch's kernels use AVX-512
    assert contradiction(name, replace(modern, hardware=lowered, environ={name: "AVX2"})) is None
    assert contradiction(name, replace(modern, hardware=lowered, environ={name: "default"})) is not None
    assert contradiction(name, here({name: "avx2"}, "cpu")) is None


@pytest.mark.parametrize("name", ["PYTORCH_NVML_BASED_CUDA_CHECK", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"])
def test_some_contradict_nothing(name: str) -> None:
    assert contradiction(name, here({name: "1"})) is None


# What these claim of torch, asked of torch itself.

ASK = """
import torch
class Seen:
    frames = 0
def backend(graph, inputs):
    Seen.frames += 1
    return graph.forward
torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
print(torch._C._get_float32_matmul_precision(), torch.get_num_threads(), Seen.frames)
"""


def asked(**environ: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {v.name for v in VARIABLES}}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK],
        env=environment | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.slow
def test_torch_does_what_is_said_of_it() -> None:
    assert asked()[0::2] == ["highest", "1"]
    assert asked(TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="1")[0] == "high"
    assert asked(TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="true")[0] == "highest"
    assert asked(TORCH_COMPILE_DISABLE="1")[2] == asked(TORCHDYNAMO_DISABLE="1")[2] == "0"
    assert asked(TORCH_COMPILE_DISABLE="true")[2] == asked(TORCHDYNAMO_DISABLE="true")[2] == "1"
    assert asked(OMP_NUM_THREADS="1")[1] == asked(MKL_NUM_THREADS="1", OMP_NUM_THREADS="2")[1] == "1"


def test_nothing_here_writes_the_environment() -> None:
    with open(_environment.__file__, encoding="utf-8") as source:
        assert "import os" not in source.read()
