"""What several processes end with, which all tests of this folder share one start for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.distributed import spread, started
from tests.distributed.parameters import whole_parameters
from tests.distributed.started import Ended, Start
from tests.pretended import optimizers_are_loaded
from torchturbo import save_checkpoint, turbo

__all__ = ["optimizers_are_loaded"]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts so many processes, once."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch was built without gloo")

    @cache
    def start(processes: int) -> Ended:
        alone = tmp_path_factory.mktemp("alone")
        end = _alone(alone)
        # Of two, gloo adds up in one order whatever is reduced, so that the bits can be compared.
        areas = ("spread", "loops", "replicas", "apart") if processes == 2 else ("spread",)
        return Ended(started.found(processes, tmp_path_factory.mktemp("ranks"), alone, *areas), end)

    return start


def _alone(folder: Path) -> list[Tensor]:
    """A checkpoint of one process, and where that one ends."""
    module, batches = spread.model(), spread.loader()
    optimizer = spread.optimizer_of(module)
    with turbo("exact", num_threads=1, **spread.FP16) as active:
        spread.train(module, batches, optimizer, epochs=1, overflows=True)
        save_checkpoint(folder / "alone-1", module, optimizer, active=active, extra={"epoch": 1})
        spread.train(module, batches, optimizer, epochs=1)
    return whole_parameters(module)
