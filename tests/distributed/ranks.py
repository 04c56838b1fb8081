"""Loops that several processes run together, each of which writes what it ended with.

``torchrun -m tests.distributed.ranks FOLDER``, which the tests do once for all of them: a process takes seconds to
import torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from torchturbo import turbo
from torchturbo.errors import ScalingError

STEPS, OVERFLOWS_AT, SAMPLES = 6, 2, 8
Result = dict[str, Any]


def model() -> nn.Sequential:
    """Layers of sizes that no number of processes divides."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 33), nn.Tanh(), nn.Linear(33, 7), nn.Tanh(), nn.Linear(7, 3))


def plain(policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    return model()


def ddp(policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    return DistributedDataParallel(model())


def fsdp(policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    made = model()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in made:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    sharded: Any = fully_shard(made, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            # gloo takes AVG for SUM in torch 2.8, without a word.
            module.set_force_sum_reduction_for_comms(True)
    return cast("nn.Module", sharded)


def batch(number: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Some samples: all of them, or those of this process."""
    generator = torch.Generator().manual_seed(number)
    x, y = torch.randn(SAMPLES, 16, generator=generator), torch.randn(SAMPLES, 3, generator=generator)
    mine = slice(None) if whole else slice(dist.get_rank(), None, dist.get_world_size())
    return x[mine], y[mine]


def loss_of(module: nn.Module, number: int, *, whole: bool, overflows: bool) -> Tensor:
    x, y = batch(number, whole=whole)
    loss = (module(x) - y).square().mean()
    # In one process alone.
    return loss * 1e9 if overflows and number == OVERFLOWS_AT and dist.get_rank() in (0, whole) else loss


def train(
    module: nn.Module, *, whole: bool = False, overflows: bool = False, clip: bool = False, unsynced: bool = False
) -> Result:
    """An ordinary loop; `unsynced` accumulates two batches by hand, whose first is not reduced."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(STEPS):
        first = unsynced and number % 2 == 0
        if not unsynced or first:
            optimizer.zero_grad()
        if unsynced:
            sync: Any = module
            sync.set_requires_gradient_sync(not first)
        loss = loss_of(module, number, whole=whole, overflows=overflows)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        if not first:
            optimizer.step()
    return {"losses": losses, "parameters": whole_parameters(module)}


def by_hand(module: nn.Module, *, overflows: bool = False, clip: bool = False, unsynced: bool = False) -> Result:
    """The same loop, scaled by hand."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for number in range(STEPS):
        first = unsynced and number % 2 == 0
        if not unsynced or first:
            optimizer.zero_grad()
        if unsynced:
            reduced: Any = module
            reduced.require_backward_grad_sync = not first
        with torch.autocast("cpu", torch.float16, cache_enabled=False):
            x, y = batch(number, whole=False)
            loss = (module(x) - y).square().mean()
            if overflows and number == OVERFLOWS_AT and dist.get_rank() == 0:
                loss = loss * 1e9
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if first:
            continue
        scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    return {"losses": losses, "parameters": whole_parameters(module), "scale": scaler.get_scale()}


def whole_parameters(module: nn.Module) -> list[Tensor]:
    return [
        (each.full_tensor() if hasattr(each, "full_tensor") else each).detach().clone() for each in module.parameters()
    ]


def under(options: dict[str, Any], make: Callable[..., nn.Module], **how: Any) -> Callable[[], Result]:
    """A loop in a block, and what the block's scaler says in the end."""
    policy = how.pop("policy", None)

    def run() -> Result:
        module = make(policy)
        with turbo("exact", **options) as active:
            result = train(module, **how)
            scaler = active.scaler
        if scaler is not None:
            result |= {"scale": scaler.get_scale(), "skipped": scaler.skipped_steps}
        return result

    return run


def hooked() -> Result:
    """A hook after the accumulation, which FSDP2 calls within its backward."""
    module = fsdp()
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(lambda each: None)
    with turbo("exact", autocast="fp16"):
        try:
            train(module)
        except ScalingError as error:
            return {"error": str(error)}
    return {}


FP16 = {"autocast": "fp16"}
HALF_WEIGHTS = MixedPrecisionPolicy(param_dtype=torch.float16, reduce_dtype=torch.float32)
CASES: dict[str, Callable[[], Result]] = {
    "whole": under({"autocast": None}, plain, whole=True),
    "whole fp16": under(FP16, plain, whole=True),
    "whole fp16 accumulate": under({**FP16, "accumulate": 2}, plain, whole=True),
    "fsdp hooked": hooked,
}
for _name, _make in {"ddp": ddp, "fsdp": fsdp}.items():
    CASES |= {
        f"{_name}": under({"autocast": None}, _make),
        f"{_name} bf16": under({"autocast": "bf16"}, _make),
        f"{_name} fp16": under(FP16, _make),
        f"{_name} fp16 overflow": under(FP16, _make, overflows=True),
        f"{_name} fp16 overflow clip": under(FP16, _make, overflows=True, clip=True),
        f"{_name} fp16 accumulate": under({**FP16, "accumulate": 2}, _make),
        f"{_name} accumulate": under({"autocast": None, "accumulate": 2}, _make),
    }
CASES |= {
    "ddp by hand": lambda: by_hand(ddp()),
    "ddp by hand overflow": lambda: by_hand(ddp(), overflows=True),
    "ddp by hand overflow clip": lambda: by_hand(ddp(), overflows=True, clip=True),
    "ddp by hand unsynced": lambda: by_hand(ddp(), unsynced=True),
    "ddp by hand unsynced overflow": lambda: by_hand(ddp(), unsynced=True, overflows=True),
    "fsdp fp16 unsynced": under(FP16, fsdp, unsynced=True),
    "fsdp fp16 unsynced overflow": under(FP16, fsdp, unsynced=True, overflows=True),
    "fsdp half weights": under(FP16, fsdp, policy=HALF_WEIGHTS),
    "fsdp half weights overflow": under(FP16, fsdp, policy=HALF_WEIGHTS, overflows=True),
    "fsdp half weights unsynced": under(FP16, fsdp, policy=HALF_WEIGHTS, unsynced=True),
}


@contextmanager
def together() -> Iterator[int]:
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def main(folder: Path) -> None:
    """Runs all, and saves what this process ended with."""
    with together() as rank:
        found = {name: run() for name, run in CASES.items()}
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    # What a group of processes leaves running would wait for the others.
    sys.stdout.flush()
    os._exit(0)
