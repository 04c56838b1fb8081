"""What the data says of itself: which hardware really has TF32, native bf16, fp16 tensor cores and fp8."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from torchturbo.hardware import Gpu, Hardware, Mps, Reason
from torchturbo.testing import MACHINES


def gpu(capability: tuple[int, int] | None, name: str = "some GPU") -> Gpu:
    return Gpu(index=0, name=name, capability=capability, memory=None, driver=None)


def machine(*gpus: Gpu, like: str = "A100") -> Hardware:
    return dataclasses.replace(MACHINES[like], gpus=gpus)


@pytest.mark.parametrize(
    ("capability", "tf32", "bf16", "fp16", "fp8"),
    [
        ((6, 1), False, False, False, False),
        ((7, 0), False, False, True, False),
        ((7, 5), False, False, True, False),
        ((8, 0), True, True, True, False),
        ((8, 6), True, True, True, False),
        ((8, 9), True, True, True, True),
        ((9, 0), True, True, True, True),
        ((10, 0), True, True, True, True),
        ((12, 0), True, True, True, True),
        (None, False, False, False, False),
    ],
)
def test_what_a_gpu_has_follows_from_its_capability(
    capability: tuple[int, int] | None, tf32: bool, bf16: bool, fp16: bool, fp8: bool
) -> None:
    one = gpu(capability)
    assert (one.has_tf32, one.has_bf16, one.has_fp16_tensor_cores, one.has_fp8) == (tf32, bf16, fp16, fp8)


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("NVIDIA GeForce GTX 1660 Ti", False),
        ("NVIDIA GeForce GTX 1650", False),
        ("NVIDIA GeForce MX450", False),
        ("NVIDIA T1000 8GB", False),
        ("NVIDIA T400", False),
        ("Quadro T2000", False),
        ("Tesla T4", True),
        ("NVIDIA GeForce RTX 2080 Ti", True),
        ("Quadro RTX 4000", True),
        ("NVIDIA TITAN RTX", True),
    ],
)
def test_the_small_turing_chips_have_no_tensor_cores(name: str, has: bool) -> None:
    assert gpu((7, 5), name).has_fp16_tensor_cores is has


def test_a_name_matters_only_for_turing() -> None:
    assert gpu((8, 6), "NVIDIA T1000").has_fp16_tensor_cores


def test_work_runs_on_the_gpu_then_on_apples_then_on_the_cpu() -> None:
    apple = Mps("Apple M1 Max", None)
    assert MACHINES["T4"].device_type == "cuda"
    assert dataclasses.replace(MACHINES["T4"], mps=apple).device_type == "cuda"
    assert MACHINES["apple"].device_type == "mps"
    assert MACHINES["cpu"].device_type == "cpu"


def test_one_gpu_is_enough_for_tf32_and_all_are_needed_for_the_rest() -> None:
    mixed = machine(gpu((9, 0)), gpu((6, 1)))
    assert mixed.has_tf32
    assert not mixed.has_bf16
    assert not mixed.has_fp16_tensor_cores
    assert not mixed.has_fp8
    assert machine(gpu((9, 0)), gpu((8, 9))).has_fp8
    assert not machine(gpu((9, 0)), gpu((8, 0))).has_fp8


def test_a_machine_without_gpus_has_nothing_that_only_they_have() -> None:
    bare = MACHINES["cpu-bf16"]
    assert not bare.has_tf32
    assert not bare.has_fp16_tensor_cores
    assert not bare.has_fp8


def test_bf16_is_asked_of_what_work_runs_on() -> None:
    with_bf16 = MACHINES["cpu-bf16"]
    assert with_bf16.has_bf16
    assert not MACHINES["cpu"].has_bf16
    assert not dataclasses.replace(with_bf16, gpus=(gpu((7, 5)),)).has_bf16
    assert dataclasses.replace(MACHINES["cpu"], gpus=(gpu((8, 0)),)).has_bf16
    assert not dataclasses.replace(with_bf16, mps=Mps("Apple M4", None)).has_bf16


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MACHINES["T4"].gpus[0].name = "faster"  # type: ignore[misc]


def test_a_reason_is_its_sentence_and_knows_what_it_is_about() -> None:
    reason = Reason("There is none.", "no slice")
    assert (reason, reason.about) == ("There is none.", "no slice")
    for again in (pickle.loads(pickle.dumps(reason)), copy.deepcopy(reason)):
        assert (type(again), again, again.about) == (Reason, reason, "no slice")
