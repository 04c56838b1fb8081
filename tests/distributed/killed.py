"""A run of which one rank is killed while it saves its second checkpoint.

``torchrun -m tests.distributed.killed FOLDER``
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tests.distributed import spread
from torchturbo import distribute, distribution_of, save_checkpoint, shard, turbo
from torchturbo._distribute import checkpoint


def main(folder: Path) -> None:
    """Trains two epochs and saves after each; the last rank does not come to the end of the second."""
    module = distribute(spread.model(), "fsdp", timeout=20)
    told = distribution_of(module)
    optimizer, batches = spread.optimizer_of(module), shard(spread.loader(), batch_size="in_all")
    with turbo("exact", **spread.FP16) as active:
        for epoch in range(spread.EPOCHS):
            spread.train(module, batches, optimizer, epochs=1)
            if epoch == 1 and told.rank == told.ranks - 1:
                checkpoint._written = _killed
            save_checkpoint(folder / "checkpoint", module, optimizer, active=active, extra={"epoch": epoch + 1})


def _killed(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
