"""Which of the processes that train together this one is, by torch's words: its rank, of a world of so many."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch.distributed


class Place(NamedTuple):
    """A process among those that train together.

    Attributes:
        rank: its number, from 0.
        size: how many there are; 1 where it trains alone.
    """

    rank: int
    size: int


ALONE = Place(0, 1)


def in_group() -> bool:
    """Whether this process is in a process group of torch's."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def is_launched() -> bool:
    """Whether torchrun, or whoever sets what it sets, has started this process as one of several."""
    return place().size > 1 and all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))


def of_group() -> Place:
    """This process's place in its process group; alone where there is none."""
    return Place(torch.distributed.get_rank(), torch.distributed.get_world_size()) if in_group() else ALONE


def place() -> Place:
    """This process's place: that in the process group, or before there is one, what torchrun has set for it."""
    if in_group():
        return of_group()
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank.isdecimal() and size.isdecimal() and int(rank) < int(size):
        return Place(int(rank), int(size))
    return ALONE


def processes_here() -> int:
    """How many processes of one launch share this machine, as torchrun says."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(told)) if told.isdecimal() else 1
