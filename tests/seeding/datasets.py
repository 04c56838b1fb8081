"""Data with random augmentations of every stream, importable by workers that are spawned."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from tests.laws.streams import draw
from torchturbo import turbo

Batch = list[tuple[int, tuple[float, ...]]]


class Augmented(Dataset[Any]):
    """Its items are their index, and a draw of every stream."""

    def __init__(self, length: int = 11) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return index, draw()


class AtOnce(Augmented):
    """It is asked for a whole batch."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in reversed(indices)]


class Nested(Augmented):
    """Each item goes through a loader of its own."""

    def __getitem__(self, index: int) -> Any:
        return index, [batch.tolist() for batch in DataLoader(range(4), shuffle=True)]  # type: ignore[arg-type]


class Stream(IterableDataset[Any]):
    """Draws as it goes, and once when it is asked for an iterator."""

    def __init__(self, length: int = 8) -> None:
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        return self._going(draw())

    def _going(self, first: Any) -> Iterator[Any]:
        worker = get_worker_info()
        for number in range(self._length):
            yield None if worker is None else worker.id, number, first, draw()


def as_they_are(batch: Any) -> Any:
    """Instead of a tensor."""
    return batch


def seeds_numpy(worker: int) -> None:
    """A worker_init_fn as PyTorch's own documentation has it."""
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def seeds_everything(worker: int) -> None:
    """Another."""
    random.seed(worker)
    np.random.seed(worker)
    torch.manual_seed(worker)


def opens_a_file(worker: int) -> None:
    """One that seeds nothing."""


def loader(workers: int, dataset: Any = None, **options: Any) -> DataLoader[Any]:
    """Small batches, shuffled."""
    options = {"batch_size": 2, "shuffle": True} | options
    dataset = Augmented() if dataset is None else dataset
    return DataLoader(dataset, num_workers=workers, collate_fn=as_they_are, **options)


def epochs(loader: DataLoader[Any], count: int = 2, seed: int = 1, **options: Any) -> list[Any]:
    """What so many epochs of a loader give in one block, with what the code around draws in between."""
    found: list[Any] = []
    with turbo("exact", seed=seed, **options):
        for _ in range(count):
            found.append(list(loader))
            found.append(draw())
    return found
