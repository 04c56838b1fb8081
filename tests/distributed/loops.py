"""One loop that several processes run together: under DistributedDataParallel and FSDP2, in blocks and by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.parameters import whole_parameters
from tests.distributed.started import Cases, Result
from tests.scaling.loops import By, ByHand, Untouched
from torchturbo import turbo
from torchturbo.errors import ScalingError

STEPS, OVERFLOWS_AT, SAMPLES = 6, 2, 8


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


def reduces(module: Any, yes: bool) -> None:
    """Has the next backward reduce gradients or not, by the means of what the module is."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(yes)
    else:
        module.require_backward_grad_sync = yes


def train(
    module: nn.Module,
    by: By,
    *,
    whole: bool = False,
    overflows: bool = False,
    clip: bool = False,
    unsynced: bool = False,
) -> list[Tensor]:
    """The loop; `unsynced` accumulates two batches by hand, whose first is not reduced."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for number in range(STEPS):
        first = unsynced and number % 2 == 0
        if not unsynced or first:
            optimizer.zero_grad()
        if unsynced:
            reduces(module, not first)
        with by.forward():
            loss = loss_of(module, number, whole=whole, overflows=overflows)
        by.scale(loss).backward()
        if first:
            continue
        by.unscale(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        by.step(optimizer)
        by.update()
    return whole_parameters(module)


def by_hand(**how: Any) -> Callable[[], Result]:
    """The loop with torch's autocast and GradScaler."""

    def run() -> Result:
        by = ByHand(cache=False)
        return {"parameters": train(ddp(), by, **how), "scale": by.scaler.get_scale()}

    return run


def under(
    options: dict[str, Any],
    make: Callable[..., nn.Module],
    policy: MixedPrecisionPolicy | None = None,
    **how: Any,
) -> Callable[[], Result]:
    """The loop, untouched, in a block, and what the block's scaler says in the end."""

    def run() -> Result:
        module = make(policy)
        with turbo("exact", **options) as active:
            result: Result = {"parameters": train(module, Untouched(), **how)}
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
    with turbo("exact", **FP16):
        try:
            train(module, Untouched())
        except ScalingError as error:
            return {"error": str(error)}
    return {}


FP32: dict[str, Any] = {"autocast": None}
FP16: dict[str, Any] = {"autocast": "fp16"}
HALF_WEIGHTS = MixedPrecisionPolicy(param_dtype=torch.float16, reduce_dtype=torch.float32)


def cases(folder: Path, alone: Path) -> Cases:
    """Everything, by name."""
    found: Cases = {
        "whole": under(FP32, plain, whole=True),
        "whole fp16": under(FP16, plain, whole=True),
        "whole fp16 accumulate": under({**FP16, "accumulate": 2}, plain, whole=True),
        "fsdp hooked": hooked,
        "ddp by hand": by_hand(),
        "ddp by hand overflow": by_hand(overflows=True),
        "ddp by hand overflow clip": by_hand(overflows=True, clip=True),
        "ddp by hand unsynced": by_hand(unsynced=True),
        "ddp by hand unsynced overflow": by_hand(unsynced=True, overflows=True),
        "fsdp fp16 unsynced": under(FP16, fsdp, unsynced=True),
        "fsdp fp16 unsynced overflow": under(FP16, fsdp, unsynced=True, overflows=True),
        "fsdp half weights": under(FP16, fsdp, HALF_WEIGHTS),
        "fsdp half weights overflow": under(FP16, fsdp, HALF_WEIGHTS, overflows=True),
        "fsdp half weights unsynced": under(FP16, fsdp, HALF_WEIGHTS, unsynced=True),
    }
    for name, make in {"ddp": ddp, "fsdp": fsdp}.items():
        found |= {
            f"{name}": under(FP32, make),
            f"{name} bf16": under({"autocast": "bf16"}, make),
            f"{name} fp16": under(FP16, make),
            f"{name} fp16 overflow": under(FP16, make, overflows=True),
            f"{name} fp16 overflow clip": under(FP16, make, overflows=True, clip=True),
            f"{name} fp16 accumulate": under({**FP16, "accumulate": 2}, make),
            f"{name} accumulate": under({**FP32, "accumulate": 2}, make),
        }
    return found
