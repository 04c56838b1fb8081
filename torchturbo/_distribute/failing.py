"""What fails on one rank fails on all, by an error of ours."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch.distributed as dist

from torchturbo.errors import CheckpointError, in_a_line
from torchturbo.hardware import Place


@contextmanager
def on_all(here: Place) -> Iterator[None]:
    """A block that all ranks leave together; where it fails on one, all raise instead of waiting for that one.

    Args:
        here: this rank's place among them.

    Raises:
        CheckpointError: it has failed on another rank.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    told: list[Any] = [None] * here.size
    if here.size > 1:
        dist.all_gather_object(told, None if failed is None else f"{type(failed).__name__}: {failed}")
    if failed is not None:
        raise failed
    if any(told):
        rank = next(number for number, each in enumerate(told) if each)
        raise CheckpointError(f"the checkpoint failed on rank {rank}: {told[rank]}")


@contextmanager
def taken_away(writing: Path, here: Place) -> Iterator[None]:
    """A block that leaves nothing half written where all ranks have raised: it would take the room of the next try.

    Args:
        writing: the folder that is written.
        here: this rank's place; the first takes it away.
    """
    try:
        yield
    except (CheckpointError, OSError):
        if here.rank == 0:
            shutil.rmtree(writing, ignore_errors=True)
        raise


@contextmanager
def by_torch(what: str) -> Iterator[None]:
    """A block in which the error of torch.distributed.checkpoint, which `except Exception` misses, is one of ours.

    Args:
        what: what could not be done, as the beginning of a sentence.

    Raises:
        CheckpointError: some rank has failed; all raise it.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        rank, (failed, _) = next(iter(error.failures.items()))
        raise CheckpointError(f"{what}, since rank {rank} has failed: {in_a_line(failed)}") from error
    except (UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{what}: a file of it is torn or of something else ({in_a_line(error)})") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """A block in which torch does not warn of what it is told to do, or of what it does itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
