"""The table: what is in force, what was before, who asked for it, and whether it acts here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from torchturbo import Profile, turbo
from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo._report import gather
from torchturbo._report.data import NOT_SET, Contradiction, Row
from torchturbo._report.engine import Engine
from torchturbo._report.rows import MIXED, UNREADABLE, read_rows
from torchturbo.settings._base import Setting
from torchturbo.testing import MACHINES, pretend_hardware


def in_another_thread(call: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), name="another")
    thread.start()
    thread.join()
    return answers[0]


def test_every_option_has_a_row_in_the_order_of_the_catalogue() -> None:
    assert [row.name for row in gather()] == [*OPTIONS, "float8"]


def test_a_row_says_what_its_option_says_of_itself() -> None:
    for row in gather().rows[:-1]:
        option = OPTIONS[row.name]
        assert (row.area, row.help) == (option.area, option.help)
        if isinstance(option, Setting):
            assert row.members == ()
            assert row.scope == (option.scope if option.cells else None)


def test_nothing_is_unreadable_and_now_is_what_each_setting_reads() -> None:
    for row in gather():
        assert row.now != UNREADABLE
        if row.name in SETTINGS:
            assert row.now == SETTINGS[row.name].now()
            assert row.before == row.now


def test_without_a_block_nobody_has_asked_for_anything() -> None:
    for row in gather():
        assert (row.origin, row.asked, row.where, row.held, row.wanted) == (NOT_SET, None, None, False, False)


# ---------------------------------------------------------------------------------------------- who, and what


def test_a_block_is_told_with_what_was_before_and_who_asked() -> None:
    with pretend_hardware("A100"), turbo("fast", matmul_precision="medium", deterministic="warn") as active:
        report = gather()
        benchmark = report["cudnn_benchmark"]
        assert (benchmark.now, benchmark.before, benchmark.asked) == (True, False, True)
        assert (benchmark.origin, benchmark.where) == ("profile fast", active.where)
        assert (benchmark.held, benchmark.wanted, benchmark.effective, benchmark.reason) == (True, True, True, None)
        matmul = report["matmul_precision"]
        assert (matmul.now, matmul.before, matmul.origin) == ("medium", "highest", "argument")
        assert report["cudnn_precision"].origin == "profile fast, tf32=True"
        assert report["deterministic"].now == "warn"
        grad = report["grad"]
        assert (grad.origin, grad.held, grad.where) == (NOT_SET, False, None)


def test_autocast_is_told_as_resolved_and_as_asked() -> None:
    with pretend_hardware("A100"), turbo("fast"):
        row = gather()["autocast"]
    assert (row.now, row.before, row.asked, row.scope) == ("bf16", None, "auto", "thread")


def test_what_this_machine_cannot_do_is_left_out_with_the_plans_reason() -> None:
    with pretend_hardware("T4"), turbo("fast") as active:
        row = gather()["autocast"]
        (decision,) = (d for d in active.plan.refused if d.name == "autocast")
        assert (row.now, row.asked, row.origin) == (None, "auto", "profile fast")
        assert (row.effective, row.reason, row.held, row.note) == (False, decision.refused, False, None)
        assert row.where == active.where
        assert row.wanted


def test_a_value_nobody_asked_for_is_held_against_the_machine_too() -> None:
    with pretend_hardware("cpu"):
        row = gather()["cudnn_benchmark"]
    assert (row.effective, row.reason) == (False, "cuDNN runs on NVIDIA GPUs, and there is none here")
    with pretend_hardware("A100"):
        row = gather()["cudnn_benchmark"]
    assert (row.effective, row.reason) == (True, None)


def test_a_value_that_only_its_absence_stands_for_is_held_against_the_machine_too() -> None:
    # cublas_workspace takes strings, and None is what an unset variable reads.
    with pretend_hardware("cpu"):
        assert gather()["cublas_workspace"].reason == "cuBLAS runs on NVIDIA GPUs, and there is none here"
    with pretend_hardware("A100"):
        assert gather()["cublas_workspace"].effective


def test_a_value_of_somebody_elses_that_the_option_does_not_take_is_not_judged() -> None:
    # Whoever opens torch.autocast with fp16 brings their own scaler: on a T4 that acts, and well.
    torch.set_autocast_enabled("cuda", True)
    try:
        with pretend_hardware("T4"):
            row = gather()["autocast"]
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert (row.now, row.effective, row.reason) == ("fp16", True, None)


# --------------------------------------------------------------------------------------------- block in block


def test_the_newest_block_that_asked_is_named_and_before_lies_beneath_all() -> None:
    with pretend_hardware("A100"), turbo("exact", cudnn_benchmark=True) as outer, turbo("debug") as inner:
        report = gather()
        row = report["cudnn_benchmark"]
        assert (row.now, row.before, row.origin, row.where) == (False, False, "profile debug", inner.where)
        assert report["anomaly"].origin == "profile debug"
        assert outer.where != inner.where or outer is not inner
        assert gather(outer)["cudnn_benchmark"].before is False
        assert gather(inner)["cudnn_benchmark"].before is True
        assert gather(inner)["cudnn_benchmark"].now is False


def test_a_report_of_a_block_tells_what_that_block_found_also_of_what_only_newer_ones_hold() -> None:
    profile = Profile("mine", cudnn_deterministic=True)
    with pretend_hardware("A100"), turbo(profile) as outer, turbo(profile, anomaly=True, grad=False) as inner:
        assert (gather(outer)["anomaly"].now, gather(outer)["anomaly"].before) == (True, False)
        assert (gather(outer)["grad"].now, gather(outer)["grad"].before) == (False, True)
        assert gather(inner)["cudnn_deterministic"].before is True
        assert gather(outer)["cudnn_deterministic"].before is False
        assert gather()["cudnn_deterministic"].before is False


def test_an_older_block_keeps_its_value_where_the_newer_one_was_refused() -> None:
    with pretend_hardware("T4"), turbo("exact") as outer, turbo("fast", matmul_precision="high"):
        row = gather()["matmul_precision"]
    assert (row.now, row.asked, row.origin, row.effective, row.held) == ("highest", "high", "argument", False, True)
    assert row.reason == "TF32 needs compute capability 8.0, and Tesla T4 does not have it"
    assert row.note == f"highest is still in force from profile exact, tf32=False ({outer.where})"


def test_what_somebody_else_changes_inside_is_told() -> None:
    with pretend_hardware("A100"), turbo("fast") as active:
        torch.backends.cudnn.benchmark = False
        row = gather()["cudnn_benchmark"]
        assert row.now is False
        assert row.note == f"somebody else has changed it: profile fast ({active.where}) put True in force"
        torch.set_autocast_enabled("cuda", False)
        note = gather()["autocast"].note
        assert note == f"somebody else has changed it: profile fast ({active.where}) put bf16 in force"
    with turbo("exact"):
        torch.set_autocast_enabled("cpu", True)
        assert str(gather()["autocast"].note).endswith("put off in force")


def test_what_a_block_only_keeps_an_eye_on_is_not_called_its_own() -> None:
    # Every block holds matrix-product precision, to put it back after a compilation.
    with turbo(Profile("mine", anomaly=True)):
        before = torch._C._get_float32_matmul_precision()
        row = gather()["matmul_precision"]
    assert before == row.now == row.before == "highest"
    assert (row.origin, row.held, row.note) == (NOT_SET, False, None)


def test_a_block_that_was_left_is_no_longer_in_the_table() -> None:
    with turbo("debug") as active:
        pass
    report = gather(active)
    assert report.about is not None
    assert not report.about.open
    assert report.blocks == ()
    assert report["anomaly"].origin == NOT_SET
    assert any("has been left" in sentence for sentence in report.advice)


def test_blocks_are_told_oldest_first_with_what_they_were_given() -> None:
    with pretend_hardware("T4"), turbo("exact"), turbo("fast", num_threads=1) as inner:
        report = gather(inner)
        first, second = report.blocks
        assert report.about == second
    assert (first.profile, second.profile) == ("exact", "fast")
    assert second.overrides == {"num_threads": 1}
    assert second.where == inner.where
    assert inner.where.startswith(__file__)
    assert second.thread == threading.current_thread().name
    assert second.left_out == tuple(decision.name for decision in inner.plan.refused)
    assert second.wanted == len(inner.plan.decisions)
    assert (first.open, second.open) == (True, True)
    assert gather().about is None


# ---------------------------------------------------------------------------------------------------- threads


def test_a_threads_own_settings_are_told_in_that_thread_alone() -> None:
    with pretend_hardware("cpu-bf16"), turbo("fast", anomaly=True) as active:
        there = in_another_thread(lambda: gather(active))
        assert (there["autocast"].now, there["autocast"].origin) == (None, NOT_SET)
        assert (there["anomaly"].now, there["anomaly"].origin) == (True, "argument")
        assert (there["anomaly"].before, there["autocast"].before) == (False, None)
        assert [block.thread for block in there.blocks] == [threading.current_thread().name]


def test_another_threads_block_is_seen_where_it_holds_what_all_share() -> None:
    opened, seen = threading.Event(), threading.Event()

    def hold() -> None:
        with pretend_hardware("cpu-bf16"), turbo("debug", num_threads=1, autocast="bf16"):
            opened.set()
            seen.wait(10)

    thread = threading.Thread(target=hold, name="holder")
    thread.start()
    opened.wait(10)
    try:
        report = gather()
        assert [block.thread for block in report.blocks] == ["holder"]
        assert report["anomaly"].origin == "profile debug"
        assert report["num_threads"].origin == NOT_SET
        assert report["autocast"].now is None
    finally:
        seen.set()
        thread.join()


# ----------------------------------------------------------------------------------------------------- groups


def test_a_group_has_the_value_on_which_its_members_agree() -> None:
    with pretend_hardware("A100"):
        with turbo("fast"):
            row = gather()["tf32"]
            assert (row.now, row.before, row.asked, row.origin) == (True, MIXED, True, "profile fast")
            assert row.members == ("matmul_precision", "cudnn_precision")
            assert (row.held, row.effective, row.reason, row.note) == (True, True, None, None)
            assert row.scope == "process"
        with turbo("fast", tf32=False) as active:
            row = gather()["tf32"]
            assert (row.now, row.asked, row.origin, row.where) == (False, False, "argument", active.where)


def test_a_group_whose_members_disagree_is_mixed_and_says_how() -> None:
    with pretend_hardware("A100"), turbo("fast", matmul_precision="highest"):
        row = gather()["tf32"]
    assert (row.now, row.asked, row.note) == (MIXED, True, "matmul_precision=highest, cudnn_precision=tf32")


def test_the_newest_block_that_names_a_group_asked_for_it() -> None:
    with pretend_hardware("A100"), turbo("fast") as outer:
        with turbo(Profile("mine", tf32=False)) as inner:
            row = gather()["tf32"]
            assert (row.origin, row.where, row.now) == ("profile mine", inner.where, False)
        with turbo(Profile("mine", anomaly=True)):
            row = gather()["tf32"]
            assert (row.origin, row.where, row.now) == ("profile fast", outer.where, True)


def test_a_group_acts_in_part_where_one_member_does() -> None:
    with pretend_hardware("cpu"):
        row = gather()["tf32"]
    assert row.effective
    assert row.reason == "cuDNN runs on NVIDIA GPUs, and there is none here"
    assert (row.origin, row.where, row.asked, row.held) == (NOT_SET, None, None, False)


def test_a_group_of_which_no_member_acts_says_each_reason_once() -> None:
    with pretend_hardware("T4"), turbo("fast"):
        row = gather()["tf32"]
    assert not row.effective
    assert row.reason == "TF32 needs compute capability 8.0, and Tesla T4 does not have it"
    with pretend_hardware("cpu"), turbo("fast"):
        row = gather()["tf32"]
    assert row.reason == (
        "TF32 is a format of NVIDIA GPUs, and there is none here; cuDNN runs on NVIDIA GPUs, and there is none here"
    )


# ----------------------------------------------------------------------------------- what torch does not tell


def test_state_that_this_torch_lacks_has_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SETTINGS["anomaly"], "cells", ())
    monkeypatch.setattr(SETTINGS["anomaly"], "missing", "it is not there")
    row = gather()["anomaly"]
    assert (row.now, row.scope, row.effective, row.reason, row.origin) == (
        None,
        None,
        False,
        "it is not there",
        NOT_SET,
    )
    with turbo(Profile("of a torch that lacks it", anomaly=True)):
        row = gather()["anomaly"]
    assert (row.origin, row.asked) == ("profile of a torch that lacks it", True)
    assert (row.effective, row.reason, row.held) == (False, "it is not there", False)


def test_a_getter_that_raises_costs_its_own_row_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*raws: object) -> object:
        raise KeyError("no such value")

    rest = [row for row in gather() if row.name != "math_sdp"]
    monkeypatch.setattr(SETTINGS["math_sdp"], "show", refuse)
    report = gather()
    row = report["math_sdp"]
    assert (row.now, row.before, row.effective) == (UNREADABLE, UNREADABLE, False)
    assert row.reason == "torch does not tell: KeyError: 'no such value'"
    assert [row for row in report if row.name != "math_sdp"] == rest


def test_a_contradiction_is_a_note_on_its_row_after_what_else_there_is_to_say() -> None:
    contradiction = Contradiction("anomaly", ("getter",), "torch contradicts itself", "nothing")

    def table() -> dict[str, Row]:
        return {row.name: row for row in read_rows(Engine.now(None), MACHINES["cpu"], [contradiction])}

    assert table()["anomaly"].note == "torch contradicts itself"
    assert table()["grad"].note is None
    with turbo("debug") as active:
        torch.set_anomaly_enabled(False)
        assert table()["anomaly"].note == (
            f"somebody else has changed it: profile debug ({active.where}) put True in force; torch contradicts itself"
        )


def test_an_environment_that_a_block_writes_is_told_with_its_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with pretend_hardware("A100"), turbo("reproducible"):
        report = gather()
        row = report["cublas_workspace"]
        (variable,) = report.environment
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == row.now == variable.value == ":4096:8"
        assert row.before == ":16:8"


def test_what_attention_does_for_the_same_bits_is_told() -> None:
    def note() -> str | None:
        return gather()["cudnn_sdp"].note

    with pretend_hardware("A100"):
        assert note() is None
        with turbo("reproducible"):
            assert note() == (
                "cuDNN's attention has no deterministic backward; FlashAttention and the memory-efficient kernel have "
                "one, which torch takes where deterministic=True"
            )
        with turbo("reproducible", cudnn_sdp=True):
            assert note() is None


def test_the_machine_that_is_pretended_is_the_one_reported() -> None:
    machine = replace(MACHINES["T4"], reasons=("because",))
    with pretend_hardware(machine):
        report = gather()
    assert report.hardware is machine
    assert report.readings == ()
    assert report.versions.cuda == machine.build.cuda
