"""Datasets as people write them: those that workers can read, and those that none would read right."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from torchturbo import Profile, turbo

NOTHING = Profile("nothing")


def asking(**options: Any) -> turbo:
    """A block that asks for these, and for nothing else."""
    return turbo(NOTHING, **options)


class Numbers(Dataset[Any]):
    """Whoever fetches them: the worker, or None."""

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        worker = get_worker_info()
        return index, -1 if worker is None else worker.id


class Endless(IterableDataset[Any]):
    """Goes on by itself."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(8))


class Holding(Numbers):
    """Holds something."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


class Counting(Numbers):
    """Counts what it has given."""

    given = 0

    def __getitem__(self, index: int) -> Any:
        self.given += 1
        return super().__getitem__(index)


class Making(Numbers):
    """Writes to what it makes for each item, which is nobody's else."""

    def __getitem__(self, index: int) -> Any:
        item = torch.ones(1)
        item.length = self.length  # type: ignore[attr-defined]
        item.length += 1  # type: ignore[attr-defined]
        return item


class Remembering(Numbers):
    """Writes what it had last."""

    def __getitem__(self, index: int) -> Any:
        self.last = index
        return index


class Slotted:
    """Has no dictionary, and no class of torch's."""

    __slots__ = ("device", "never", "wanted")

    def __init__(self, device: Any) -> None:
        self.device = device

    def __len__(self) -> int:
        return 12

    @torch.no_grad()
    def __getitem__(self, index: int) -> Any:
        return RANDOM.integers(3) if self.device is None else index

    def __getattr__(self, name: str) -> Any:
        raise LookupError("its own code is not called")


class Moving(Numbers):
    """Computes where the model is."""

    def __getitem__(self, index: int) -> Any:
        return self._moved(torch.ones(1))

    def _moved(self, tensor: torch.Tensor) -> Any:
        return tensor.cuda()


RANDOM = np.random.default_rng(0)


class Drawing(Numbers):
    """Draws from a generator of its module."""

    def __getitem__(self, index: int) -> Any:
        return index, RANDOM.integers(3)


class Forwarding(DataLoader[Any]):
    """A loader of somebody's own, as those of graphs are: it adds an argument, and passes on the rest."""

    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, follow: Any = None, **more: Any):
        more.pop("collate_fn", None)
        super().__init__(dataset, batch_size, shuffle, collate_fn=default_collate, **more)


class Deciding(DataLoader[Any]):
    """A loader of somebody's own that has a default of its own."""

    def __init__(self, dataset: Any, num_workers: int = 1, **more: Any):
        super().__init__(dataset, num_workers=num_workers, **more)


def on_device(batch: Any) -> Any:
    """Collates where the model is."""
    return default_collate(batch).to("cuda:0")


class File:
    """As h5py has it, which need not be installed."""


File.__module__ = "h5py._hl.files"


UNFIT: dict[str, tuple[Any, str]] = {
    "an IterableDataset": (Endless(), "the dataset is an IterableDataset, of which each worker would give all samples"),
    "a generator of numbers": (Holding(random.Random(0)), "the dataset.held is a random generator, from whose state"),
    "one of NumPy's": (Holding([np.random.default_rng(0)]), "an entry of the dataset.held is a random generator"),
    "one of torch's": (Holding({"of": torch.Generator()}), "the dataset.held['of'] is a random generator"),
    "in a slot": (Slotted(torch.device("cuda")), "the dataset.device is the device cuda"),
    "beneath a decorator": (Slotted(None), "RANDOM, which the dataset.__getitem__ names, is a random generator"),
    "within another": (Subset(ConcatDataset([Drawing()]), [0]), "RANDOM, which an entry of the dataset.dataset"),
    "one of its module": (Drawing(), "RANDOM, which the dataset.__getitem__ names, is a random generator"),
    "a handle": (Holding(File()), "the dataset.held is a h5py._hl.files.File, which reads a file that workers would"),
    "an iterator": (Holding(itertools.count()), "the dataset.held is an iterator, which each worker would go through"),
    "a tensor elsewhere": (Holding(torch.device("cuda")), "the dataset.held is the device cuda, which belongs to"),
    "the name of a device": (Holding("cuda:1"), "the dataset.held is 'cuda:1', a device, which belongs to"),
    "code that moves": (Moving(), "what the dataset._moved names is 'cuda', a device"),
    "a model": (Holding(torch.nn.Linear(1, 1)), "the dataset.held is a module with parameters, which is for the"),
    "gradients": (Holding(torch.ones(1, requires_grad=True)), "the dataset.held is a tensor that requires gradients"),
}
FIT: dict[str, Any] = {
    "numbers": Numbers(),
    "a file in memory": Holding(io.BytesIO(b"bytes")),
    "the system's randomness": Holding(random.SystemRandom()),
    "transforms": Holding(torch.nn.Sequential(torch.nn.ReLU())),
    "the CPU": Holding(torch.device("cpu")),
    "writes to what it makes": Making(),
    "tensors": TensorDataset(torch.ones(12)),
    "a list": [1, 2, 3],
}
