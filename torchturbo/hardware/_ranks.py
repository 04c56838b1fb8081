"""Which of the processes that train together this one is, by torch's words: its rank, of a world of so many."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch.distributed
from torch.utils.data import get_worker_info

from torchturbo.errors import RanksError

AT_LAUNCH = timedelta(minutes=5)
"""How long one that is launched waits for the others: until the slowest has imported torch."""


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


def processes_here(otherwise: int = 1) -> int:
    """How many processes of one launch share this machine, as torchrun says.

    Args:
        otherwise: how many there are where it does not.
    """
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(told)) if told.isdecimal() else otherwise


def store() -> Any:
    """Where this process and those that train with it find each other; None where there is no other.

    Raises:
        RanksError: it cannot be reached.
    """
    if place().size == 1 or get_worker_info() is not None:
        return None
    if in_group():
        return torch.distributed.distributed_c10d._get_default_store()
    if not is_launched() or not torch.distributed.is_available():
        return None
    distributed: Any = torch.distributed
    if not _kept:
        try:
            # It serves the script's own process group too, and must not end before that begins.
            _kept.append(next(distributed.rendezvous("env://", timeout=AT_LAUNCH))[0])
        except distributed.DistError as error:
            raise RanksError(
                f"the other processes cannot be reached at MASTER_ADDR={os.environ['MASTER_ADDR']}, "
                f"MASTER_PORT={os.environ['MASTER_PORT']}: {error}"
            ) from None
    return _kept[0]


_kept: list[Any] = []
