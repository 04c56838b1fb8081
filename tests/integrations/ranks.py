"""Two processes that train by each library's DistributedDataParallel: ``torchrun -m tests.integrations.ranks FOLDER``.

Each writes what it ended with, by library: alone, with torchturbo's block for the library, and in a plain block.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.integrations import training

ARGUMENTS: dict[str, dict[str, Any]] = {
    "lightning": {"strategy": "ddp", "devices": 2, "accumulate_grad_batches": 2},
    "fabric": {"strategy": "ddp", "devices": 2, "waits": 2},
    "accelerate": {"waits": 2},
    "transformers": {"ddp_backend": "gloo", "gradient_accumulation_steps": 2, "max_steps": 12},
}
HOW: dict[str, tuple[str | None, bool]] = {"alone": (None, True), "block": ("fast", True), "plain": ("fast", False)}


def run(library: str) -> dict[str, Any]:
    """What came of it, in each way."""
    found = {}
    for how, (profile, inside) in HOW.items():
        losses, bits, left = getattr(training, library)(profile, "bf16", inside=inside, **ARGUMENTS[library])
        found[how] = {"losses": losses, "bits": bits, "left": left}
    return found


def here() -> list[str]:
    """The libraries that are installed."""
    needs = {"lightning": ["lightning"], "fabric": ["lightning"], "transformers": ["transformers", "accelerate"]}
    return [name for name in ARGUMENTS if all(map(importlib.util.find_spec, needs.get(name, [name])))]


def main(folder: Path) -> None:
    """Trains by each library that is here."""
    warnings.simplefilter("ignore")  # the libraries' own
    found = {library: run(library) for library in here()}
    (folder / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
