"""A plan is what a profile and options come to on a machine, and needs no such machine to be made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from torchturbo import PROFILES
from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo._plan import Plan, decide
from torchturbo.hardware import detect
from torchturbo.settings._base import Group
from torchturbo.testing import MACHINES

V100, T4, EPYC = "Tesla V100-SXM2-16GB", "Tesla T4", "AMD EPYC 7763 64-Core Processor"
NO_TF32 = "TF32 needs compute capability 8.0, and {} does not have it"
NO_GPU = "TF32 is a format of NVIDIA GPUs, and there is none here"
NO_CUDNN = "cuDNN runs on NVIDIA GPUs, and there is none here"
NO_BF16 = "{} computes bf16 by emulation only; it is fast in fp16: autocast='fp16', around what calls backward too"

# What `fast` leaves out, and why; what is missing here it puts in force.
LEFT_OUT_OF_FAST = {
    "V100": {
        "matmul_precision": NO_TF32.format(V100),
        "cudnn_precision": NO_TF32.format(V100),
        "autocast": NO_BF16.format(V100),
    },
    "T4": {
        "matmul_precision": NO_TF32.format(T4),
        "cudnn_precision": NO_TF32.format(T4),
        "autocast": NO_BF16.format(T4),
    },
    "RTX 3090": {},
    "RTX 4090": {},
    "A100": {},
    "H100": {},
    "H200": {},
    "B200": {},
    "cpu-bf16": {"matmul_precision": NO_GPU, "cudnn_precision": NO_CUDNN, "cudnn_benchmark": NO_CUDNN},
    "cpu": {
        "matmul_precision": NO_GPU,
        "cudnn_precision": NO_CUDNN,
        "cudnn_benchmark": NO_CUDNN,
        "autocast": f"{EPYC} computes bf16 by emulation only, which is slower than float32",
    },
    "apple": {
        "matmul_precision": NO_GPU,
        "cudnn_precision": NO_CUDNN,
        "cudnn_benchmark": NO_CUDNN,
        "autocast": "Apple's GPUs do not tell whether they compute bf16 or only emulate it; all of them compute fp16: "
        "autocast='fp16', around what calls backward too",
    },
    "B580": {"matmul_precision": NO_GPU, "cudnn_precision": NO_CUDNN, "cudnn_benchmark": NO_CUDNN},
    "Max 1550": {"matmul_precision": NO_GPU, "cudnn_precision": NO_CUDNN, "cudnn_benchmark": NO_CUDNN},
}
every_plan = pytest.mark.parametrize(
    "plan",
    [decide(profile, {}, machine) for profile in PROFILES.values() for machine in MACHINES.values()],
    ids=[f"{profile} on {machine}" for profile in PROFILES for machine in MACHINES],
)


def left_out(plan: Plan) -> dict[str, str | None]:
    return {decision.name: decision.refused for decision in plan.refused}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_fast_comes_to_on_each_machine(machine: str) -> None:
    plan = decide(PROFILES["fast"], {}, MACHINES[machine])
    assert [d.name for d in plan.decisions if d.name in LEFT_OUT_OF_FAST[machine]] == [d.name for d in plan.refused]
    assert left_out(plan) == LEFT_OUT_OF_FAST[machine]
    assert {(d.name, d.asked, d.value) for d in plan.decisions} == {
        ("matmul_precision", "high", "high"),
        ("cudnn_precision", "tf32", "tf32"),
        ("cudnn_benchmark", True, True),
        ("autocast", "auto", "bf16"),
    }


def test_what_needs_no_machine_is_left_out_nowhere() -> None:
    options = {"num_threads": 1, "grad": False, "anomaly": True, "deterministic": True, "autocast": None}
    for machine in MACHINES.values():
        assert left_out(decide(PROFILES["exact"], options, machine)).keys().isdisjoint(options)


def test_medium_precision_has_a_use_on_a_cpu_with_bf16() -> None:
    for machine, refused in (("cpu-bf16", False), ("cpu", True), ("A100", False), ("T4", True)):
        plan = decide(PROFILES["exact"], {"matmul_precision": "medium"}, MACHINES[machine])
        assert ("matmul_precision" in left_out(plan)) == refused, machine


@every_plan
def test_every_decision_is_in_order_and_either_has_a_reason_or_writes(plan: Plan) -> None:
    names = [decision.name for decision in plan.decisions]
    assert names == [name for name in SETTINGS if name in names]
    assert names
    for decision in plan.decisions:
        setting = SETTINGS[decision.name]
        if decision.refused is None:
            assert setting.edits(decision.value, plan.hardware)
        else:
            assert len(decision.refused.split()) >= 4
            assert not decision.refused.endswith(".")
        assert decision.origin.startswith(f"profile {plan.profile.name}")
        assert OPTIONS[decision.name].parse(decision.value) == decision.value


@every_plan
def test_what_is_left_out_writes_nothing(plan: Plan) -> None:
    in_force = [decision for decision in plan.decisions if decision.refused is None]
    cells = {cell for decision in in_force for cell, _ in SETTINGS[decision.name].edits(decision.value, plan.hardware)}
    assert {cell for cell, _ in plan.writes} == cells
    assert set(in_force).isdisjoint(plan.refused)


@every_plan
def test_the_same_asked_twice_is_the_same(plan: Plan) -> None:
    again = decide(plan.profile, plan.overrides, plan.hardware)
    assert again == plan
    assert again.decisions == plan.decisions


def test_options_come_before_the_profile_and_members_before_their_group() -> None:
    def value(profile: str, **options: object) -> tuple[object, object, str]:
        plan = decide(PROFILES[profile], options, MACHINES["A100"])
        found = {decision.name: decision for decision in plan.decisions}
        return found["matmul_precision"].value, found["cudnn_precision"].value, found["matmul_precision"].origin

    assert value("max") == ("medium", "tf32", "profile max")
    assert value("max", tf32=True) == ("high", "tf32", "argument, tf32=True")
    assert value("max", tf32=False) == ("highest", "ieee", "argument, tf32=False")
    assert value("max", tf32=False, matmul_precision="high") == ("high", "ieee", "argument")
    assert value("max", matmul_precision="high", tf32=False) == ("high", "ieee", "argument")
    assert value("exact", cudnn_precision="tf32") == ("highest", "tf32", "profile exact, tf32=False")


def test_groups_stand_for_settings_that_there_are() -> None:
    groups = [option for option in OPTIONS.values() if isinstance(option, Group)]
    assert groups
    for group in groups:
        for value in group.values.choices:
            members = group.members(value)
            assert members
            for name, its in members.items():
                assert SETTINGS[name].parse(its) == its


def test_a_plan_cannot_be_changed() -> None:
    plan = decide(PROFILES["fast"], {}, detect())
    with pytest.raises(FrozenInstanceError):
        plan.decisions = ()
    with pytest.raises(FrozenInstanceError):
        plan.decisions[0].refused = "no"
