"""The loop of `benchmarks.scaling` rewritten for peers, as their documents tell one to."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import warnings

import torch
from torch import nn

from benchmarks._scaled import DEVICE, Burst, Task, parts


def versions() -> dict[str, str | None]:
    """The versions of the peers; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in REWRITTEN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def by_accelerate(task: Task, precision: str) -> tuple[nn.Module, Burst]:
    """The loop rewritten for Accelerate: what is trained goes through `prepare`, backward and clipping are its own.

    On a CPU `mixed_precision="fp16"` is taken, and trains in float32 without a word. So that the same work is compared,
    it is told there what it would have found out on a GPU: that it has autocast, and which scaler to use.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model, optimizer, batches = parts(task)
    # Its state is one for the process, and keeps the precision of whoever came first.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=DEVICE == "cpu", mixed_precision=precision)
    if precision == "fp16" and DEVICE == "cpu":
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler(DEVICE)
    prepared, stepping = accelerator.prepare(model, optimizer)

    def burst(steps: int) -> list[float]:
        losses = []
        for batch in itertools.islice(batches, steps):
            stepping.zero_grad()
            loss = task.loss(prepared, batch)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(prepared.parameters(), task.clip)
            stepping.step()
            losses.append(loss.item())
        return losses

    return model, burst


def by_fabric(task: Task, precision: str) -> tuple[nn.Module, Burst]:
    """The loop rewritten for Lightning Fabric: model and optimizer set up, backward and clipping are its own.

    On a CPU `precision="16-mixed"` becomes bf16, with a warning. Its plugin for fp16 works there, and is given to it.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    model, optimizer, batches = parts(task)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plugin = MixedPrecision("16-mixed" if precision == "fp16" else "bf16-mixed", DEVICE)
        fabric = Fabric(accelerator=DEVICE, devices=1, plugins=plugin)
        prepared, stepping = fabric.setup(model, optimizer)

    def burst(steps: int) -> list[float]:
        losses = []
        for batch in itertools.islice(batches, steps):
            stepping.zero_grad()
            loss = task.loss(prepared, batch)
            fabric.backward(loss)
            fabric.clip_gradients(prepared, stepping, max_norm=task.clip)
            stepping.step()
            losses.append(loss.item())
        return losses

    return model, burst


REWRITTEN = {"accelerate": by_accelerate, "lightning-fabric": by_fabric}
"""The peers' loops, by the names that they are installed by."""
