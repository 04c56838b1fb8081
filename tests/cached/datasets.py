"""Datasets that are built once, or must not be; spawned workers find them here."""

from __future__ import annotations

import os
import random
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

SCALE = 3


class Pair(NamedTuple):
    x: torch.Tensor
    y: int


class Picture:
    """Something of an imaging library's kind: pickled by its state."""

    def __init__(self, raw: bytes, size: tuple[int, int]) -> None:
        self.raw, self.size = raw, size


class Squares(Dataset[Any]):
    """Items that come of the index alone; each build leaves a line in a file."""

    def __init__(self, log: str, length: int = 10, scale: int = 1) -> None:
        self._log, self.length, self.scale = [log], length, scale
        self.built = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        self.built += 1  # what reading writes is no input
        with open(self._log[0], "a") as file:
            file.write(f"{index}\n")
        return {"x": torch.full((2, 3), index * self.scale).t(), "pair": Pair(torch.tensor(index), index), "name": "n"}

    def builds(self) -> list[int]:
        return [int(line) for line in Path(self._log[0]).read_text().split()]


class Items(Dataset[Any]):
    """What it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class ByEpoch(Dataset[Any]):
    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index, self.epoch])


class Ones(Dataset[Any]):
    """One number an item, of a function."""

    def __init__(self, function: Any, length: int = 6) -> None:
        self.function, self.length = function, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.ones(2) * self.function(index)


def by_random(index: int) -> float:
    return random.random()


def by_numpy(index: int) -> float:
    return float(np.random.rand())


def by_torch(index: int) -> float:
    return float(torch.rand(()))


def by_clock(index: int) -> float:
    return float(time.perf_counter_ns() % 1_000_000)


def by_system(index: int) -> float:
    return float(int.from_bytes(os.urandom(4), "little"))


OWN = random.Random(0)


def by_own_generator(index: int) -> float:
    return OWN.random()


def late(index: int) -> float:
    """Random where the samples do not look."""
    return random.random() if index == 1 else 0.0


def drawn_for_nothing(index: int) -> float:
    random.random()
    return float(index)


def reseeded(index: int) -> float:
    torch.manual_seed(index)
    return float(torch.rand(()))


class Lines(IterableDataset[Any]):
    def __init__(self, count: int = 5, chance: bool = False) -> None:
        self.count, self.chance = count, chance

    def __iter__(self) -> Iterator[Any]:
        torch.utils.data.get_worker_info()
        for number in range(self.count):
            yield torch.tensor(number + (random.random() if self.chance else 0.0))


def ordered(value: Any) -> Any:
    return OrderedDict(value)
