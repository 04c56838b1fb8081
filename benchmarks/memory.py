"""What `low_memory` keeps for backward of a GPT of twelve layers, and whether its gradients are the same to the bit.

Each model takes the same step plain and in the block. On a CPU what forward saves is counted, each storage once and
without weights; with a GPU its allocator's peak is, beyond what was there before.

    python -m benchmarks.memory [--width 256] [--length 128] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from benchmarks import _record
from torchturbo import memory_plan, turbo
from torchturbo._models.gpt import SYMBOLS, Net, Size
from torchturbo.hardware import detect

LIMIT = 0.38
"""The part that has to be saved at the least."""


class Saved:
    """Bytes that forward saves, each storage once and none of the model's own."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        self._held: dict[int, Tensor] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Counts a tensor, and holds it, so that no other gets its place."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self._weights:
            self._held[place] = tensor.detach()
        return tensor

    @property
    def bytes(self) -> int:
        """All together."""
        return sum(each.untyped_storage().nbytes() for each in self._held.values())


def step(size: Size, device: str, around: AbstractContextManager[Any]) -> tuple[int, list[Tensor]]:
    """Bytes that a step keeps, and its gradients."""
    torch.manual_seed(0)
    model = Net(size).to(device)
    symbols = torch.randint(SYMBOLS, (size.batch, size.length + 1)).to(device)
    saved = Saved(model)
    gc.collect()
    before = 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with around:
        with nullcontext() if device == "cuda" else saved_tensors_hooks(saved.keep, lambda tensor: tensor):
            loss = cross_entropy(model(symbols[:, :-1]).flatten(0, 1), symbols[:, 1:].flatten())
        kept = saved.bytes
        del saved
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
    if device == "cuda":
        kept = torch.cuda.max_memory_allocated() - before
    return kept, [each.grad for each in model.parameters() if each.grad is not None]


def main() -> None:
    """Measures, prints and, where asked, records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    size = Size(width=asked.width, depth=12, heads=4, length=asked.length, batch=4)
    device = detect().device_type if detect().device_type == "cuda" else "cpu"
    console = Console()
    rows: list[dict[str, Any]] = []
    table = Table("precision", "plain, bytes", "low_memory, bytes", "saved", "same gradients to the bit")
    for precision in (None, "bf16"):
        if precision is not None and not detect().has_bf16:
            continue
        plain, theirs = step(size, device, turbo("exact", autocast=precision))
        less, ours = step(size, device, turbo("low_memory", autocast=precision))
        same = len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
        rows.append(
            {"autocast": precision, "plain": plain, "low_memory": less, "saved": 1 - less / plain, "same": same}
        )
        table.add_row(str(precision), f"{plain:,}", f"{less:,}", f"{1 - less / plain:.1%}", str(same))
    console.print(table)
    model = Net(size).to(device)
    symbols = torch.zeros(size.batch, size.length, dtype=torch.long, device=device)
    opt = torch.optim.AdamW(model.parameters())
    plan = memory_plan(model, (symbols, symbols), opt, loss=lambda out, its: cross_entropy(out.mT, its))
    console.print(plan)
    command = f"python -m benchmarks.memory --width {asked.width} --length {asked.length}"
    if asked.json:
        _record.write(asked.json, "memory", command, {"limit": LIMIT, "rows": rows, "plan": plan.to_dict()})
    # In float32 the gradients have to be the same; on a GPU some kernels of torch add up in any order.
    failed = [row for row in rows if row["saved"] < LIMIT or (device == "cpu" and not row["same"])]
    raise SystemExit(f"not as it has to be: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
