"""Whose a moment is: held against events that are written by hand, of the CPU and of a GPU."""

from __future__ import annotations

import pytest

from torchturbo._layers.attribution import attributed
from torchturbo._layers.events import BACKWARD, LAYER, STEP, Kernel, Range

NODE = "autograd::engine::evaluate_function: "


def step(*ranges: Range, end: int = 100) -> list[Range]:
    return [Range(STEP, 0, end, 1), *ranges]


def test_own_times_add_up_to_the_step() -> None:
    found = attributed(
        step(
            Range("enumerate(DataLoader)#_Single.__next__", 0, 10, 1),
            Range(f"{LAYER}model", 10, 40, 1),
            Range("aten::mm", 12, 20, 1, sequence=7),
            Range(f"{LAYER}model.head", 22, 38, 1),
            Range("aten::mm", 24, 36, 1, sequence=8),
            Range("aten::cross_entropy_loss", 42, 46, 1, sequence=9),
            Range("aten::nll_loss", 43, 45, 1, sequence=9),
            Range(BACKWARD, 50, 80, 1),
            Range(f"{NODE}NllLossBackward", 51, 55, 1, sequence=9, forward_thread=1),
            Range(f"{NODE}MmBackward", 56, 66, 1, sequence=8, forward_thread=1),
            Range("aten::mm", 57, 65, 1),
            Range(f"{NODE}MmBackward", 67, 72, 1, sequence=7, forward_thread=1),
            Range(f"{NODE}torch::autograd::AccumulateGrad", 73, 75, 1),
            Range("Optimizer.step#SGD.step", 81, 95, 1),
            Range("aten::item", 96, 98, 1, sequence=10),
        )
    )
    assert found.parts == {"input": 10, "forward": 30 + 4, "backward": 30, "optimizer": 14, "other": 12}
    assert sum(found.parts.values()) == found.total == 100
    model, head = found.layers["model"], found.layers["model.head"]
    assert (model.own, model.whole) == ({"forward": 14, "backward": 5}, {"forward": 30, "backward": 15})
    assert (head.own, head.whole) == ({"forward": 16, "backward": 10}, {"forward": 16, "backward": 10})
    assert found.alone == {"input": 10, "forward": 4, "backward": 15, "optimizer": 14, "other": 12}
    assert found.operators["aten::mm"] == (8 + 12 + 8, 3)
    assert not any(name.startswith((LAYER, NODE, "Optimizer", STEP)) for name in found.operators)


def test_the_last_operator_of_a_number_has_recorded_it() -> None:
    """Those that record nothing have the number of the next one that does."""
    found = attributed(
        step(
            Range(f"{LAYER}data", 0, 10, 1),
            Range("aten::randn", 1, 9, 1, sequence=3),
            Range(f"{LAYER}model", 10, 20, 1),
            Range("aten::mm", 11, 19, 1, sequence=3),
            Range(f"{NODE}MmBackward", 30, 60, 1, sequence=3, forward_thread=1),
        )
    )
    assert found.layers["model"].own["backward"] == 30
    assert "backward" not in found.layers["data"].own


def test_what_a_checkpoint_computes_again_is_backward() -> None:
    found = attributed(
        step(
            Range(f"{LAYER}model", 0, 20, 1),
            Range("CheckpointFunction", 5, 15, 1, sequence=1),
            Range(BACKWARD, 30, 90, 1),
            Range(f"{NODE}CheckpointFunctionBackward", 30, 90, 1, sequence=1, forward_thread=1),
            Range(f"{LAYER}model.inner", 40, 60, 1),
            Range("aten::mm", 41, 59, 1, sequence=2),
            Range(f"{NODE}MmBackward", 61, 81, 1, sequence=2, forward_thread=1),
        )
    )
    assert dict(found.layers["model.inner"].own) == {"backward": 40}
    assert dict(found.layers["model"].whole) == {"forward": 20, "backward": 60}


def test_a_module_that_calls_itself_is_counted_once() -> None:
    found = attributed(step(Range(f"{LAYER}m", 0, 60, 1), Range(f"{LAYER}m", 10, 50, 1), end=60))
    assert (found.layers["m"].whole["forward"], found.layers["m"].own["forward"], found.layers["m"].calls) == (
        60,
        60,
        2,
    )


def test_backward_in_a_threads_of_a_device_is_in_the_step_and_other_threads_are_not() -> None:
    found = attributed(
        step(
            Range(f"{LAYER}m", 0, 10, 1),
            Range("aten::mm", 1, 9, 1, sequence=1),
            Range(BACKWARD, 20, 80, 1),
            Range(f"{NODE}MmBackward", 30, 70, 2, sequence=1, forward_thread=1),
            Range("aten::randn", 85, 95, 3),
        )
    )
    assert found.layers["m"].own == {"forward": 10, "backward": 40}
    assert found.parts == {"forward": 10, "backward": 60, "other": 30}


def test_on_a_gpu_kernels_count_and_what_it_waits_for() -> None:
    ranges = step(
        Range("enumerate(DataLoader)#_Single.__next__", 0, 20, 1),
        Range("aten::to", 21, 24, 1, key=1),
        Range(f"{LAYER}m", 25, 30, 1),
        Range("aten::mm", 26, 29, 1, sequence=1, key=2),
        Range(BACKWARD, 31, 40, 1),
        Range(f"{NODE}MmBackward", 32, 39, 2, sequence=1, forward_thread=1),
        Range("aten::mm", 33, 38, 2, key=3),
        Range("Optimizer.step#SGD.step", 40, 50, 1),
        Range("aten::add_", 41, 49, 1, key=4),
    )
    kernels = [
        Kernel("Memcpy HtoD (Pageable -> Device)", 22, 30, 1),
        Kernel("gemm", 30, 50, 2),
        Kernel("gemm_backward", 50, 85, 3),
        Kernel("add", 90, 105, 4),
    ]
    found = attributed(ranges, kernels)
    assert found.parts == {"input": 20 + 8, "idle": 2 + 5, "forward": 20, "backward": 35, "optimizer": 15}
    assert sum(found.parts.values()) == found.total == 105
    assert found.layers["m"].own == {"forward": 20, "backward": 35}
    assert found.operators["aten::mm"] == (55, 2)


def test_kernels_at_one_time_are_one_time() -> None:
    ranges = step(Range(f"{LAYER}m", 0, 10, 1), Range("aten::mm", 1, 5, 1, key=1))
    found = attributed(ranges, [Kernel("a", 10, 60, 1), Kernel("b", 20, 40, 1), Kernel("c", 50, 100, 99)])
    assert found.parts == pytest.approx({"idle": 10, "forward": 50, "other": 40})
    assert found.layers["m"].own["forward"] == 70  # what the kernels took, one by one


def test_compiled_code_is_seen() -> None:
    found = attributed(step(Range(f"{LAYER}m", 0, 10, 1), Range("Torch-Compiled Region: 0/0", 1, 9, 1)))
    assert found.layers["m"].compiled
