"""What only a GPU can show of watching: NVML's numbers of a loop that uses it, and of one that keeps it waiting."""

from __future__ import annotations

import io
import time

import pytest
import torch

from torchturbo import hardware, watch
from torchturbo.errors import WatchWarning

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _on_nvidia() -> None:
    torch.zeros(1, device="cuda")
    if not hardware.readings():
        pytest.skip("NVML does not answer")


def test_a_busy_gpu_is_not_told_of() -> None:
    matrix = torch.randn(4096, 4096, device="cuda")
    watched = watch(range(200), every=0.5, after=3.0, to=io.StringIO())
    for _ in watched:
        for _ in range(10):
            matrix @ matrix
        torch.cuda.synchronize()
    assert watched.seen is not None
    found = watched.seen.machine
    assert found.utilization is not None
    assert watched.seen.utilization > 0.7
    assert found.power is not None
    assert (found.memory or 0) >= matrix.nbytes
    assert (found.memory_total or 0) > (found.memory_peak or 0) >= (found.memory or 0)


def _host_code() -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.02:
        pass


def _idle(matrix: torch.Tensor, every: float) -> None:
    for _ in watch(range(400), every=every, after=4.0, to=io.StringIO()):
        matrix @ matrix
        _host_code()


def test_host_code_that_keeps_it_waiting_is_named() -> None:
    matrix = torch.randn(256, 256, device="cuda")
    with pytest.warns(WatchWarning, match=r"(?s)the GPU is busy .*host code in your loop.*_host_code"):
        _idle(matrix, 0.5)
