"""DistributedDataParallel and FSDP2 in blocks: the bits of loops scaled by hand, on every process alike."""

from __future__ import annotations

import pytest

from tests.distributed.parameters import apart, same
from tests.distributed.replicas import KINDS
from tests.distributed.started import Result, Start

Found = list[dict[str, Result]]


@pytest.fixture(scope="module")
def found(start: Start) -> Found:
    """What each process ended with, by case."""
    return [its["loops"] for its in start(2).ranks]


def _same(one: Result, other: Result) -> bool:
    return same(one["parameters"], other["parameters"]) and one.get("scale") == other.get("scale")


def test_all_processes_end_with_the_same(found: Found) -> None:
    first, *others = found
    for other in others:
        for case, result in first.items():
            assert "error" in result or _same(result, other[case]), case


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ddp fp16", "ddp by hand"),
        ("ddp fp16 overflow", "ddp by hand overflow"),
        ("ddp fp16 overflow clip", "ddp by hand overflow clip"),
        ("fsdp fp16", "ddp by hand"),
        ("fsdp fp16 overflow", "ddp by hand overflow"),
        ("fsdp fp16 unsynced", "ddp by hand unsynced"),
        ("fsdp fp16 unsynced overflow", "ddp by hand unsynced overflow"),
        ("fsdp half weights", "ddp by hand"),
        ("fsdp half weights overflow", "ddp by hand overflow"),
        ("fsdp half weights unsynced", "ddp by hand unsynced"),
        ("fsdp fp16 accumulate", "ddp fp16 accumulate"),
        ("fsdp", "ddp"),
        ("fsdp bf16", "ddp bf16"),
    ],
)
def test_the_bits_are_those_of_the_loop_by_hand(found: Found, ours: str, theirs: str) -> None:
    assert _same(found[0][ours], found[0][theirs])


def test_clipping_by_a_norm_that_shards_add_up_in_another_order_ends_near(found: Found) -> None:
    ours, theirs = found[0]["fsdp fp16 overflow clip"], found[0]["ddp by hand overflow clip"]
    assert ours["scale"] == theirs["scale"]
    assert apart(ours["parameters"], theirs["parameters"]) < 1e-6


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("how", "within"), [("", 1e-7), (" fp16", 2e-4), (" fp16 accumulate", 2e-4)])
def test_one_process_with_all_samples_ends_near(found: Found, strategy: str, how: str, within: float) -> None:
    ours, whole = found[0][f"{strategy}{how}"], found[0][f"whole{how}"]
    assert apart(ours["parameters"], whole["parameters"]) <= within


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_overflow_on_one_process_skips_the_step_on_all(found: Found, strategy: str) -> None:
    for its in found:
        result = its[f"{strategy} fp16 overflow"]
        assert (result["skipped"], result["scale"]) == (1, 2.0**15)
    assert found[0][f"{strategy} fp16"]["skipped"] == 0


def test_hooks_that_would_see_scaled_gradients_of_shards_are_refused(found: Found) -> None:
    assert "step after backward" in found[0]["fsdp hooked"]["error"]


def test_each_kind_of_replicas_has_the_bits_of_the_loop_by_hand(start: Start) -> None:
    for its in start(2).ranks:
        assert {kind: result["differences"] for kind, result in its["replicas"].items()} == {kind: [] for kind in KINDS}
        assert {result["skipped"] for kind, result in its["replicas"].items() if kind != "accumulated"} == {2}
        assert its["replicas"]["accumulated"]["skipped"] == 3
