"""Each piece of advice: given where it applies, and not a step beyond."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.report.facts import COMPILED, OPEN, facts
from torchturbo._catalogue import OPTIONS
from torchturbo._environment import Found
from torchturbo._report import advice as pieces
from torchturbo._report.advice import advise
from torchturbo._report.data import Contradiction, Report
from torchturbo._report.findings import Check, Finding
from torchturbo.hardware import Reading
from torchturbo.testing import MACHINES

Piece = Callable[[Report], Iterator[Finding]]


def said(piece: Piece, *args: Any, **kwargs: Any) -> tuple[str, ...]:
    """What the piece says of these facts; all of the advice says the same there, at its place."""
    report = facts(*args, **kwargs)
    sentences = tuple(finding.sentence for finding in piece(report))
    whole = advise(report)
    assert all(sentence in whole for sentence in sentences)
    return sentences


def variable(name: str, value: str, contradiction: str | None = None) -> Found:
    return Found(name, value, "does", "acts", contradiction)


def test_there_is_nothing_to_say_of_a_torch_at_its_defaults_on_a_machine_that_has_nothing_more() -> None:
    assert advise(facts("cpu")) == ()


# ------------------------------------------------------------------------------------- what would act, unused


@pytest.mark.parametrize("machine", ["cpu-bf16", "A100", "B200"])
def test_native_bf16_that_nobody_uses_is_pointed_out(machine: str) -> None:
    (sentence,) = said(pieces.bf16_is_unused, machine)
    assert 'with turbo("fast"):' in sentence
    hardware = MACHINES[machine]
    assert (hardware.gpus[0].name if hardware.gpus else hardware.cpu.name) in sentence


@pytest.mark.parametrize("machine", ["cpu", "T4", "V100", "apple"])
def test_bf16_that_is_not_native_is_not_advised(machine: str) -> None:
    assert said(pieces.bf16_is_unused, machine) == ()


def test_bf16_is_not_advised_inside_a_block_or_under_autocast() -> None:
    assert said(pieces.bf16_is_unused, "A100", blocks=(OPEN,)) == ()
    assert said(pieces.bf16_is_unused, "A100", {"autocast": {"now": "bf16"}}) == ()


def test_tf32_that_nobody_uses_is_pointed_out() -> None:
    (sentence,) = said(pieces.tf32_is_unused, "A100")
    assert "matmul_precision is highest" in sentence
    assert 'turbo("exact", tf32=True)' in sentence


def test_tf32_is_not_advised_where_it_is_absent_used_forbidden_or_decided_on() -> None:
    assert said(pieces.tf32_is_unused, "T4") == ()
    assert said(pieces.tf32_is_unused, "A100", {"matmul_precision": {"now": "high"}}) == ()
    assert said(pieces.tf32_is_unused, "A100", environment=(variable("NVIDIA_TF32_OVERRIDE", "0"),)) == ()
    assert said(pieces.tf32_is_unused, "A100", blocks=(OPEN,)) == ()


def test_other_variables_and_other_values_do_not_forbid_tf32() -> None:
    assert said(pieces.tf32_is_unused, "A100", environment=(variable("NVIDIA_TF32_OVERRIDE", "1"),))
    assert said(pieces.tf32_is_unused, "A100", environment=(variable("CUDA_VISIBLE_DEVICES", "0"),))


# ------------------------------------------------------------------------------------------ asked for in vain


def test_a_block_of_which_nothing_acts_is_named() -> None:
    idle = replace(OPEN, left_out=("a", "b", "c", "d"))
    (sentence,) = said(pieces.block_does_nothing, blocks=(OPEN, idle))
    assert "'fast' at train.py:7 changes nothing on this machine" in sentence


def test_a_block_of_which_something_acts_or_that_asks_for_nothing_is_not() -> None:
    partly, empty = replace(OPEN, left_out=("a", "b", "c")), replace(OPEN, wanted=0)
    assert said(pieces.block_does_nothing, blocks=(OPEN, partly, empty)) == ()


def test_a_variable_that_contradicts_is_repeated_with_its_reason() -> None:
    environment = (variable("A", "1"), variable("B", "2", "does nothing"))
    told = said(pieces.environment_overrules, environment=environment)
    assert told == ("B=2: does nothing. `unset B`, unless that is what is meant.",)
    environment = (variable("B", "2", "forbids it: unset it to have it"),)
    assert said(pieces.environment_overrules, environment=environment) == ("B=2: forbids it: unset it to have it.",)


def test_a_block_that_was_left_is_told_apart() -> None:
    (sentence,) = said(pieces.block_was_left, about=replace(OPEN, open=False))
    assert "'fast' at train.py:7 has been left" in sentence
    assert said(pieces.block_was_left, about=OPEN) == ()
    assert said(pieces.block_was_left) == ()


# ---------------------------------------------------------------------------------------- at odds with itself

MIXED = Contradiction("matmul_precision", ("getter()", "other"), "who says what", "write_this(1)")


def test_getters_that_raise_are_named_with_what_to_write() -> None:
    (sentence,) = said(pieces.getters_raise, contradictions=(MIXED,))
    assert sentence.startswith("getter() and other cannot answer")
    assert "`write_this(1)`" in sentence


def test_nothing_is_to_be_written_where_a_block_of_ours_makes_them_raise() -> None:
    (sentence,) = said(pieces.getters_raise, rows={"matmul_precision": {"held": True}}, contradictions=(MIXED,))
    assert sentence.startswith("getter() and other cannot answer inside this block")
    assert "torchturbo.report()['matmul_precision'].now" in sentence
    assert "write_this" not in sentence
    (sentence,) = said(pieces.getters_raise, rows={"cudnn_precision": {"held": True}}, contradictions=(MIXED,))
    assert "write_this" in sentence


@pytest.mark.parametrize(("threads", "cores", "words"), [(17, 16, "run on 16 cores"), (2, 1, "run on 1 core:")])
def test_more_threads_than_cores_are_pointed_out(threads: int, cores: int, words: str) -> None:
    machine = replace(MACHINES["cpu"], cpu=replace(MACHINES["cpu"].cpu, cores=cores))
    (sentence,) = said(pieces.more_threads_than_cores, machine, {"num_threads": {"now": threads}})
    assert f"uses {threads} threads" in sentence
    assert words in sentence
    assert f"num_threads={cores}" in sentence


@pytest.mark.parametrize("threads", [1, 16, "unreadable"])
def test_as_many_threads_as_cores_are_fine(threads: object) -> None:
    assert said(pieces.more_threads_than_cores, rows={"num_threads": {"now": threads}}) == ()


@pytest.mark.parametrize("mode", [True, "warn"])
def test_timed_kernels_do_not_go_with_determinism(mode: object) -> None:
    rows = {"deterministic": {"now": mode}, "cudnn_benchmark": {"now": True}}
    (sentence,) = said(pieces.benchmark_is_not_deterministic, "A100", rows)
    assert "cudnn_benchmark=False" in sentence
    assert said(pieces.benchmark_is_not_deterministic, "cpu", rows) == ()


@pytest.mark.parametrize(("mode", "benchmark"), [(False, True), (True, False), ("warn", False)])
def test_either_alone_is_fine(mode: object, benchmark: bool) -> None:
    rows = {"deterministic": {"now": mode}, "cudnn_benchmark": {"now": benchmark}}
    assert said(pieces.benchmark_is_not_deterministic, "A100", rows) == ()


@pytest.mark.parametrize("mode", [True, "warn"])
def test_who_chooses_kernels_of_compiled_code_is_told(mode: object, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"deterministic": {"now": mode}, "compile": {"now": True}}
    piece = pieces.compiled_kernels_and_determinism
    monkeypatch.setattr(pieces, "TORCH", (2, 10))
    (sentence,) = said(piece, "cpu", rows)
    assert "inductor chooses no kernel by timing it" in sentence
    monkeypatch.setattr(pieces, "TORCH", (2, 9))
    (sentence,) = said(piece, "A100", rows)
    assert "the next process may have other bits. Set compile=False" in sentence
    assert said(piece, "cpu", rows) == ()
    for other in ({"deterministic": {"now": False}}, {"compile": {"now": False}}):
        assert said(piece, "A100", rows | other) == ()


# ------------------------------------------------------------------------------------------- left by somebody


def test_anomaly_detection_that_somebody_left_on_is_pointed_out() -> None:
    (sentence,) = said(pieces.anomaly_is_slow, rows={"anomaly": {"now": True}})
    assert "torch.autograd.set_detect_anomaly(False)" in sentence
    assert said(pieces.anomaly_is_slow, rows={"anomaly": {"now": True, "origin": "argument"}}) == ()
    assert said(pieces.anomaly_is_slow) == ()


def test_cudnn_that_somebody_switched_off_is_pointed_out_where_there_is_one() -> None:
    off = {"cudnn_enabled": {"now": False}}
    (sentence,) = said(pieces.cudnn_is_off, "A100", off)
    assert "cuDNN is switched off" in sentence
    assert said(pieces.cudnn_is_off, "cpu", off) == ()
    assert said(pieces.cudnn_is_off, "A100", {"cudnn_enabled": {"now": False, "origin": "argument"}}) == ()
    assert said(pieces.cudnn_is_off, "A100") == ()


def test_a_gpu_that_is_held_down_is_pointed_out() -> None:
    readings = (
        Reading(0, throttle=("idle: nothing runs on it", "power cap: it draws much")),
        Reading(1, throttle=("heat: too hot", "idle: nothing", "power brake: the supply asks")),
        Reading(2, throttle=("hardware slowdown: too hot",)),
        Reading(3, throttle=None),
        Reading(4, throttle=()),
    )
    first, second = said(pieces.gpu_is_held_down, "A100", readings=readings)
    assert first.startswith("GPU 1 is slower than it could be")
    assert "(heat: too hot; power brake: the supply asks)" in first
    assert second.startswith("GPU 2")


def test_every_check_of_the_file_is_part_of_the_advice_and_says_what_it_looks_for() -> None:
    declared = {name: its for name, its in vars(pieces).items() if isinstance(its, Check)}
    assert list(declared.values()) == list(pieces.CHECKS)
    assert {name: its.name for name, its in declared.items()} == {name: name for name in declared}
    assert [name for name, its in declared.items() if not its.about] == []


# --------------------------------------------------------------------------------------------------- compiled code


def test_what_compiled_code_does_not_look_at_is_pointed_out() -> None:
    rows = {"math_sdp": {"held": True, "now": False, "before": True}, "flash_sdp": {"held": True}}
    (sentence,) = said(pieces.compiled_code_keeps_what_it_found, "cpu", rows, compiled=(COMPILED,))
    assert "look again at math_sdp." in sentence
    assert said(pieces.compiled_code_keeps_what_it_found, "cpu", rows) == (), "nothing has been compiled"
    assert said(pieces.compiled_code_keeps_what_it_found, "cpu", compiled=(COMPILED,)) == (), "nothing is changed"
    guarded = {"num_threads": {"held": True, "now": 1, "before": 2}}
    assert said(pieces.compiled_code_keeps_what_it_found, "cpu", guarded, compiled=(COMPILED,)) == ()


def test_what_compiled_code_does_not_look_at_is_all_options() -> None:
    assert set(pieces.UNGUARDED) <= set(OPTIONS)
