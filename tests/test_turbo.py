"""What a block puts in force, and how it may be used: again, within itself, by name and by profile, strictly."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
import torch

import torchturbo
from torchturbo import PROFILES, Profile, turbo
from torchturbo.errors import OptionNameError, OptionValueError, ProfileNameError, TurboError, UnsupportedHere
from torchturbo.testing import pretend_hardware


def anomaly() -> bool:
    return bool(torch.is_anomaly_enabled())


def autocast() -> bool:
    return bool(torch.is_autocast_enabled("cpu"))


def decided(block: turbo, name: str) -> Any:
    """What a block decides of one setting on the machine in force."""
    with block as active:
        return next(decision for decision in active.plan.decisions if decision.name == name)


# ------------------------------------------------------------------------------------------------ what is in force


def test_the_profile_is_fast_unless_another_is_named() -> None:
    for block, name in ((turbo(), "fast"), (turbo("exact"), "exact"), (turbo(profile="debug"), "debug")):
        with block as active:
            assert active.plan.profile is PROFILES[name]


def test_a_profile_may_be_ones_own() -> None:
    mine = Profile("mine", num_threads=1, anomaly=True)
    with turbo(mine) as active:
        assert (torch.get_num_threads(), anomaly(), active.plan.profile) == (1, True, mine)
    with turbo(PROFILES["debug"] | Profile("quiet", anomaly=False)):
        assert not anomaly()


def test_options_beat_the_profile_whatever_the_profile() -> None:
    with pretend_hardware("cpu-bf16"):
        with turbo("exact", autocast="bf16"):
            assert autocast()
        with turbo("fast", autocast=None):
            assert not autocast()
        with turbo("inference", grad=True):
            assert torch.is_grad_enabled()
    for profile in PROFILES:
        for on in (True, False):
            with turbo(profile, anomaly=on, grad=on):
                assert (anomaly(), torch.is_grad_enabled()) == (on, on)


def test_what_nobody_asked_for_is_left_alone() -> None:
    torch.autograd.set_detect_anomaly(True)
    with turbo("fast"):
        assert anomaly()
        torch.set_warn_always(True)
    assert torch.is_warn_always_enabled(), "the block holds nothing of the kind"
    torch.set_warn_always(False)
    torch.autograd.set_detect_anomaly(False)


def test_what_the_block_holds_comes_back_whoever_changed_it_inside() -> None:
    with turbo("debug"):
        torch.autograd.set_detect_anomaly(False)
    assert not anomaly()
    with turbo("exact", anomaly=False):
        torch.autograd.set_detect_anomaly(True)
    assert not anomaly()


# --------------------------------------------------------------------------------------- one name inside another


CUDNN, MATMUL = "cudnn_precision", "matmul_precision"


def convolutions() -> str:
    if hasattr(torch.backends.cudnn, "conv"):
        return torch.backends.cudnn.conv.fp32_precision
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"  # torch 2.8


@pytest.mark.parametrize(
    ("profile", "options", "matmul", "cudnn"),
    [
        ("fast", {}, "high", "tf32"),
        ("exact", {}, "highest", "ieee"),
        ("max", {}, "medium", "tf32"),  # holds both tf32=True and matmul_precision="medium"
        ("fast", {"matmul_precision": "highest"}, "highest", "tf32"),
        ("fast", {"cudnn_precision": "ieee"}, "high", "ieee"),
        ("exact", {"tf32": True}, "high", "tf32"),
        ("exact", {"tf32": True, "matmul_precision": "medium"}, "medium", "tf32"),
        ("exact", {"matmul_precision": "medium", "tf32": True}, "medium", "tf32"),
        ("max", {"tf32": False}, "highest", "ieee"),  # what was asked for beats both that the profile holds
        ("max", {"tf32": True}, "high", "tf32"),
    ],
)
def test_a_name_for_several_settings_gives_way_to_theirs(
    profile: str, options: dict[str, Any], matmul: str, cudnn: str
) -> None:
    with pretend_hardware("A100"):
        block = turbo(profile, **options)
        assert (decided(block, MATMUL).value, decided(block, CUDNN).value) == (matmul, cudnn)
        with block:
            assert torch.get_float32_matmul_precision() == matmul
            assert convolutions() == cudnn


def test_each_decision_says_who_asked() -> None:
    with pretend_hardware("A100"):
        assert decided(turbo("fast"), MATMUL).origin == "profile fast, tf32=True"
        assert decided(turbo("fast", tf32=False), MATMUL).origin == "argument, tf32=False"
        assert decided(turbo("fast", matmul_precision="high"), MATMUL).origin == "argument"
        assert decided(turbo("exact"), "fp16_reduction").origin == "profile exact"


# --------------------------------------------------------------------------------------------------- unsupported


def test_what_has_no_effect_here_is_left_out_and_says_why() -> None:
    before = torch.backends.cudnn.benchmark
    with pretend_hardware("cpu"):
        decision = decided(turbo("fast"), "cudnn_benchmark")
        with turbo("fast"):
            assert torch.backends.cudnn.benchmark == before
            assert not autocast()
    assert decision.refused == "cuDNN runs on NVIDIA GPUs, and there is none here"


@pytest.mark.parametrize("machine", ["cpu", "T4", "apple"])
def test_strictly_it_is_an_error(machine: str) -> None:
    block = turbo("fast", strict=True, anomaly=True)
    with pretend_hardware(machine), pytest.raises(UnsupportedHere), block:
        pytest.fail("the block was entered")
    assert not anomaly()


def test_strictly_on_a_machine_that_can() -> None:
    with pretend_hardware("A100"), turbo("fast", strict=True) as active:
        assert active.plan.refused == ()
        assert torch.backends.cudnn.benchmark


def test_one_block_follows_the_machine() -> None:
    block = turbo("fast", strict=True)
    for _ in range(2):
        with pretend_hardware("A100"), block:
            assert torch.is_autocast_enabled("cuda")
        with pretend_hardware("cpu"), pytest.raises(UnsupportedHere), block:
            pytest.fail("the block was entered")


# ----------------------------------------------------------------------------------------------------- bad names


@pytest.mark.parametrize(
    ("error", "arguments", "options"),
    [
        (OptionNameError, ("debug",), {"cudnn_bencmark": True}),
        (OptionNameError, ("debug",), {"num_threads": 1, "Strict": True}),
        (OptionValueError, ("debug",), {"num_threads": 0}),
        (OptionValueError, ("debug",), {"num_threads": True}),
        (OptionValueError, ("debug",), {"anomaly": 1}),
        (OptionValueError, ("debug",), {"autocast": "fp8"}),
        (OptionValueError, ("debug",), {"autocast": ["bf16"]}),
        (ProfileNameError, ("fsat",), {}),
        (ProfileNameError, ("",), {}),
        (ProfileNameError, (None,), {}),
        (ProfileNameError, (["fast"],), {}),
        (ProfileNameError, ({"anomaly": True},), {}),
    ],
)
def test_bad_names_and_values_are_refused_before_anything_changes(
    error: type[TurboError], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(error):
        turbo(*arguments, **options)
    with pytest.raises(error):
        torchturbo.accelerate(profile=arguments[0], **options)
    assert not anomaly()


def test_errors_are_what_python_would_raise_too() -> None:
    with pytest.raises(TypeError):
        turbo(cudnn_bencmark=True)  # as a keyword that a function does not have
    with pytest.raises(ValueError, match="num_threads"):
        turbo(num_threads=0)
    with pytest.raises(LookupError):
        turbo("fsat")


def test_only_the_profile_goes_by_position() -> None:
    with pytest.raises(TypeError):
        turbo("fast", True)
    assert str(inspect.signature(turbo)).startswith(
        "(profile: 'str | Profile' = 'fast', *, strict: 'bool' = False, **op"
    )


# ------------------------------------------------------------------------------------------------------ what it is


def test_an_active_block_says_where_it_was_opened_and_by_whom() -> None:
    line = inspect.stack()[0].lineno
    with turbo("debug") as active:
        assert active.where == f"{__file__}:{line + 1}"
        assert active.thread == threading.current_thread().name
        assert repr(active) == f"<Active 'debug' at {active.where} in {active.thread}>"


def test_repr_is_what_was_typed() -> None:
    assert repr(turbo()) == "turbo('fast')"
    block = turbo("exact", strict=True, autocast="bf16", num_threads=2)
    assert repr(block) == "turbo('exact', strict=True, autocast='bf16', num_threads=2)"
    assert repr(eval(repr(block))) == repr(block)


def test_other_spellings_are_one_value() -> None:
    assert repr(turbo(autocast=torch.bfloat16, default_dtype="fp64")) == (
        "turbo('fast', autocast='bf16', default_dtype='float64')"
    )
    assert repr(turbo(autocast=False)) == "turbo('fast', autocast=None)"
