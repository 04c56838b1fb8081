"""A small training that draws from every stream, which can be stopped and gone on with; run as a program too."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from torchturbo import turbo

STEPS_PER_EPOCH, EPOCHS = 4, 2


class Augmented(Dataset[Tensor]):
    """Samples that draw from each stream when they are fetched."""

    def __len__(self) -> int:
        return 4 * STEPS_PER_EPOCH

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((4,), float(index)) / 8 + torch.randn(4) + random.random() + float(np.random.rand())


class Streamed(IterableDataset[Tensor]):
    """The same without indices."""

    def __iter__(self) -> Any:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, 4 * STEPS_PER_EPOCH, step):
            yield torch.full((4,), float(index)) / 8 + torch.randn(4)


def train(
    *,
    workers: int = 0,
    stop: int | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    streamed: bool = False,
    own_generator: bool = False,
    persistent: bool = False,
    seed: int = 42,
    **options: Any,
) -> dict[str, Any]:
    """Trains to the end, or to the step `stop`; the checkpoint afterwards.

    Args:
        workers: of the loader.
        stop: after how many steps.
        checkpoint: what another run has returned.
        streamed: whether the dataset is an iterable one.
        own_generator: whether the loader has a generator of its own.
        persistent: whether its workers stay.
        seed: of the block.
        **options: of the block.
    """
    with turbo("reproducible", seed=seed, **options) as active:
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(7) if own_generator else None
        loader: Any = DataLoader(
            Streamed() if streamed else Augmented(),
            4,
            shuffle=None if streamed else True,
            num_workers=workers,
            generator=generator,
            persistent_workers=persistent,
        )
        done = 0
        if checkpoint is not None:
            model.load_state_dict(checkpoint["model"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            active.load_state_dict(checkpoint["turbo"])
            done = checkpoint["done"]
        seen: list[Tensor] = []

        def saved() -> dict[str, Any]:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "turbo": active.state_dict()}
            return {**state, "done": done, "seen": seen}

        for _ in range(done // STEPS_PER_EPOCH, EPOCHS):
            for batch in loader:
                seen.append(batch)
                optimizer.zero_grad()
                noise = random.random() + float(np.random.rand())
                F.mse_loss(model(batch).float(), batch.mean(1, keepdim=True) + noise).backward()
                optimizer.step()
                done += 1
                if done == stop:
                    return saved()
        return saved()


if __name__ == "__main__":
    _, file, workers, stop = sys.argv
    torch.save(train(workers=int(workers), stop=int(stop)), file)
