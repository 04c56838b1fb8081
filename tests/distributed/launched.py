"""A script for torchrun: each rank draws, all add up, and then one fails while the other waits for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

rank = int(os.environ["RANK"])
torch.set_num_threads(1)
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
Path(sys.argv[1], f"{rank}.txt").write_text(
    f"{torch.initial_seed()} {torch.is_autocast_enabled('cpu')} {total.item():g} {hash('the order of sets')}"
)
dist.barrier()
if rank == 1:
    raise RuntimeError("on purpose")
dist.all_reduce(total)
