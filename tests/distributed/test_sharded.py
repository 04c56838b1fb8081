"""DistributedDataParallel and FSDP2 in blocks: the bits of loops scaled by hand, on every process alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PROCESSES = 2
Found = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each process ended with, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.distributed.ranks", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one["parameters"], other["parameters"], strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs) and one.get("scale") == other.get("scale")


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
    for mine, its in zip(ours["parameters"], theirs["parameters"], strict=True):
        assert float((mine - its).abs().max()) < 1e-6


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("how", "within"), [("", 1e-7), (" fp16", 2e-4), (" fp16 accumulate", 2e-4)])
def test_one_process_with_all_samples_ends_near(found: Found, strategy: str, how: str, within: float) -> None:
    for mine, whole in zip(
        found[0][f"{strategy}{how}"]["parameters"], found[0][f"whole{how}"]["parameters"], strict=True
    ):
        assert float((mine - whole).abs().max()) <= within


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_overflow_on_one_process_skips_the_step_on_all(found: Found, strategy: str) -> None:
    for rank in range(PROCESSES):
        result = found[rank][f"{strategy} fp16 overflow"]
        assert (result["skipped"], result["scale"]) == (1, 2.0**15)
    assert found[0][f"{strategy} fp16"]["skipped"] == 0


def test_hooks_that_would_see_scaled_gradients_of_shards_are_refused(found: Found) -> None:
    assert "step after backward" in found[0]["fsdp hooked"]["error"]
