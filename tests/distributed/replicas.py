"""DistributedDataParallel in its kinds, by hand and untouched: where one process overflows, all leave the step out."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.started import Cases, Result
from tests.scaling.loops import LOUD, OPTIONS, QUIET, STEPS, ByHand, Untouched, batch, differences, flat, net, sgd
from torchturbo import turbo
from torchturbo.testing import pretend_hardware


class Partly(nn.Module):
    """Each process uses another part of it, in turns."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.last = nn.ModuleList([net(outputs=8), net(outputs=8)]), nn.Linear(8, 1)
        self.calls = dist.get_rank()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.last(self.parts[self.calls % 2](x))
        return result


def loss_of(model: nn.Module, step: int, loud: tuple[int, ...], rank: int) -> Tensor:
    x, y = batch(step, rank)
    return F.mse_loss(model(x), y) * (LOUD if rank == 1 and step in loud else QUIET)


def trained(by: Any, around: Any, kind: str) -> tuple[dict[str, object], int]:
    """The second process alone overflows in some steps."""
    torch.manual_seed(0)
    rank = dist.get_rank()
    partly = kind == "unused"
    plain = Partly() if partly else net()
    model = DistributedDataParallel(
        plain, find_unused_parameters=partly, gradient_as_bucket_view=kind == "views", static_graph=kind == "static"
    )
    optimizer, seen = sgd(plain), []
    with around as active:
        for step in range(STEPS):
            optimizer.zero_grad(set_to_none=kind != "views")
            if kind == "accumulated":
                with model.no_sync():
                    with by.forward():
                        loss = loss_of(model, step, (5,), rank) / 2
                    by.scale(loss).backward()
            with by.forward():
                loss = loss_of(model, step, (0, 7), rank)
            by.scale(loss).backward()
            by.unscale(optimizer)
            norm = nn.utils.clip_grad_norm_(plain.parameters(), QUIET)
            by.step(optimizer)
            by.update()
            seen.append((loss.detach(), norm))
    scaler = by.scaler if active is None else active.scaler
    skipped = by.skipped if active is None else scaler.skipped_steps
    gradients = [parameter.grad for parameter in plain.parameters()]
    state = optimizer.state_dict()["state"]
    return dict(flat([seen, plain.state_dict(), state, gradients, scaler.get_scale(), skipped])), skipped


KINDS = ("plain", "views", "accumulated", "unused", "static")


def compared(kind: str) -> Result:
    """The steps that were skipped, and what is not the same bits."""
    with warnings.catch_warnings():
        # What torch says of parameters that are found unused is no business of ours.
        warnings.simplefilter("ignore")
        expected, skipped = trained(ByHand(**OPTIONS), nullcontext(), kind)
        with pretend_hardware("cpu-bf16"):
            found, _ = trained(Untouched(), turbo("fast", autocast="fp16", **OPTIONS), kind)
    return {"skipped": skipped, "differences": differences(found, expected)}


def cases(folder: Path, alone: Path) -> Cases:
    """Each kind, by name."""
    return {kind: partial(compared, kind) for kind in KINDS}
