"""What one number of processes takes for a step: `benchmarks.distributed` starts them, and rank 0 writes it down."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F

from torchturbo import distribute
from torchturbo._distribute.choice import bytes_of
from torchturbo._models.gpt import SIZES, SYMBOLS, Net

SIZES_OF_MESSAGES = [2**power for power in range(10, 27, 2)]
"""Bytes: from a kibibyte to 64 mebibytes."""
WARM_UP = 3


def _longest(seconds: float) -> float:
    """What the slowest rank takes: the others wait for it."""
    if not dist.is_initialized():
        return seconds
    found = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def _together() -> None:
    if dist.is_initialized():
        dist.barrier()


class Spans:
    """How long reductions of `DistributedDataParallel` are under way in a step: first's start to last's end."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended = 0.0

    def watch(self, model: Any) -> None:
        """Has the reductions of a model noted."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        # A lambda, as torch looks at annotations.
        hook: Any = lambda group, bucket: self._noted(allreduce_hook(group, bucket))  # noqa: E731
        model.register_comm_hook(None, hook)

    def _noted(self, reduction: Any) -> Any:
        self.began = time.perf_counter() if self.began is None else self.began

        def done(future: Any) -> Any:
            self.ended = time.perf_counter()
            return future.value()

        return reduction.then(done)

    def taken(self) -> float:
        """Seconds since the last call of it."""
        seconds = 0.0 if self.began is None else self.ended - self.began
        self.began = None
        return seconds


def _step_of(model: Any, size: str, synced: bool = True) -> Callable[[], None]:
    its = SIZES[size]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    symbols = torch.randint(SYMBOLS, (its.batch, its.length + 1))

    def step() -> None:
        if not synced:
            model.require_backward_grad_sync = False
        optimizer.zero_grad()
        F.cross_entropy(model(symbols[:, :-1]).flatten(0, 1), symbols[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def of_one() -> Any:
    """A mesh of this process alone: FSDP2 does all that it does, and nobody waits for another."""
    return init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("copies", "shards"))["shards"]


def steps(size: str, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of a step by way, in turn; and how long reductions were under way in those of "ddp".

    Args:
        size: of the model.
        rounds: how often each way has its turn.
    """
    spans = Spans()
    if not dist.is_initialized():
        ways = {"alone": _step_of(Net(SIZES[size]), size)}
    else:
        watched = distribute(Net(SIZES[size]), "ddp")
        spans.watch(watched)
        ways = {
            "not reduced": _step_of(distribute(Net(SIZES[size]), "ddp"), size, synced=False),
            "ddp": _step_of(watched, size),
            "ddp, sent in bf16": _step_of(distribute(Net(SIZES[size]), "ddp", gradient_dtype=torch.bfloat16), size),
            "fsdp of one": _step_of(distribute(Net(SIZES[size]), "fsdp", mesh=of_one()), size),
            "fsdp": _step_of(distribute(Net(SIZES[size]), "fsdp"), size),
        }
    found: dict[str, list[float]] = {name: [] for name in ways}
    under_way: list[float] = []
    for number in range(-WARM_UP, rounds):
        for name, step in ways.items():
            _together()
            began = time.perf_counter()
            step()
            taken = time.perf_counter() - began
            longest, span = _longest(taken), spans.taken()
            if number >= 0:
                found[name].append(longest)
                if name == "ddp":
                    under_way.append(span)
    return found, under_way


def _operations(size: int) -> dict[str, Callable[[], Any]]:
    """What is measured alone, by name: of that many bytes in all.

    Args:
        size: bytes.
    """
    ranks = dist.get_world_size()
    # Newer ones of torch call them by other names.
    gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
    scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
    whole = torch.ones(max(ranks, size // 4 // ranks * ranks))
    part = whole[: whole.numel() // ranks].clone()
    return {
        "all-reduce": lambda: dist.all_reduce(whole),
        "all-gather": lambda: gather(whole, part),
        "reduce-scatter": lambda: scatter(part, whole),
    }


def alone(rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of all-reduces, all-gathers and reduce-scatters by themselves, by name and bytes.

    Args:
        rounds: how often each is taken.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for number in range(-WARM_UP, rounds):
        for size in SIZES_OF_MESSAGES:
            for name, run in _operations(size).items():
                _together()
                began = time.perf_counter()
                run()
                longest = _longest(time.perf_counter() - began)
                if number >= 0:
                    found.setdefault(name, {}).setdefault(size, []).append(longest)
    return found


def main(path: Path, size: str, rounds: int) -> None:
    """Measures, and has rank 0 write it down."""
    torch.manual_seed(0)
    model = Net(SIZES[size])
    gradients = sum(each.nbytes for each in model.parameters())
    distribute(torch.nn.Linear(1, 1), "ddp")  # starts the group, if there is one
    found, under_way = steps(size, rounds)
    content = {
        "ranks": dist.get_world_size() if dist.is_initialized() else 1,
        "bytes of gradients": gradients,
        "bytes in all": bytes_of(model),
        "seconds of a step": found,
        "seconds that reductions of ddp are under way": under_way,
        "units of fsdp": SIZES[size].depth + 1,
        "seconds alone, by bytes": alone(rounds) if dist.is_initialized() else {},
        "median": {name: statistics.median(its) for name, its in found.items()},
    }
    if not dist.is_initialized() or dist.get_rank() == 0:
        path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
