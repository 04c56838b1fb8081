"""How many workers a data loader gets that names no number itself, and why none."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sized
from typing import Any

import torch
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset, get_worker_info

from torchturbo._words import size
from torchturbo.errors import in_a_line
from torchturbo.hardware import _room, detect
from torchturbo.hardware._ranks import processes_here
from torchturbo.regions._datasets import copied_bytes, unfit, written_by

_AT_MOST = 8
"""Workers for one GPU by "auto": beyond that memory is what they cost first."""
_LEAST_SHARED = 2**30
"""Free bytes of shared memory below which "auto" starts nobody: a few batches of images fill it, and that kills."""


def decided(wanted: Any, named: dict[str, Any]) -> tuple[int, str]:
    """How many workers a loader gets, and what is to be told of it.

    Args:
        wanted: a number, or "auto".
        named: what the call of the loader names.
    """
    if wanted == 0:
        return 0, "got num_workers=0"
    try:
        reason = reason_against(named)
        if reason is None and wanted == "auto":
            number, reason = _fitting(named)
            if number:
                return number, f"got num_workers={number}: {reason}"
        elif reason is None and (names := written_by(named["dataset"])) is not None:
            return wanted, f"got num_workers={wanted}; the dataset writes {names}, each worker to a copy of its own"
    except Exception as error:
        # A dataset may be anything, and a call that does without us must not come to raise.
        reason = f"looking at what they load raised {in_a_line(error)}"
    if reason is not None:
        return 0, f"got no workers: {reason}"
    return wanted, f"got num_workers={wanted}"


def reason_against(named: dict[str, Any]) -> str | None:
    """Why a loader gets no workers, however many are asked for, or None.

    Args:
        named: what the call of the loader names.
    """
    if get_worker_info() is not None:
        return "they are made in a worker of a data loader"
    if multiprocessing.current_process().daemon:
        return "they are made in a daemonic process, which may start no others"
    if isinstance(named["dataset"], IterableDataset):
        return (
            "the dataset is an IterableDataset, of which each worker would give all samples once more; if it gives "
            "each worker its share, write num_workers in the call"
        )
    return unfit(named, starts_anew(named))


def starts_anew(named: dict[str, Any]) -> bool:
    """Whether a loader's workers begin as a new Python, and are not forked.

    Args:
        named: what the call of the loader names.
    """
    context = named.get("multiprocessing_context")
    if context is None or not hasattr(context, "get_start_method"):
        # Asked without allow_none, Python decides for good which it is, and set_start_method raises from then on.
        method = context or multiprocessing.get_start_method(allow_none=True)
    else:
        method = context.get_start_method(allow_none=True)
    return (method or multiprocessing.get_all_start_methods()[0]) != "fork"


def _fitting(named: dict[str, Any]) -> tuple[int, str]:
    """The number that "auto" stands for, and why."""
    dataset = named["dataset"]
    if named.get("multiprocessing_context") is None and starts_anew(named):
        return 0, (
            "workers are not forked here but started anew, which takes seconds and needs a script that can be imported"
        )
    if _in_memory(dataset):
        return 0, "the data are in memory already, and sending them to this process takes longer than indexing"
    if (names := written_by(dataset)) is not None:
        return 0, f"the dataset writes {names} as it is read, which each worker would do to a copy of its own"
    processes = processes_here()
    cores = _room.cores(detect().cpu.cores) // processes
    on_gpu = detect().device_type != "cpu"
    number = min(_AT_MOST, cores - 1) if on_gpu else min(2, cores // 4)
    of = f"the {cores} cores" if processes == 1 else f"the {cores} cores of each of {processes} processes"
    if number < 1:
        return 0, f"of {of} none can be spared" if cores > 1 else f"there is one core for each of {processes} processes"
    why = f"of {of} one goes on with the loop" if on_gpu else f"of {of} most compute, as there is no GPU"
    why = f'"auto" starts no more than {number}' if number == _AT_MOST else why
    shared = _room.shared_memory()
    if shared is not None and shared < _LEAST_SHARED:
        return 0, f"/dev/shm, where workers leave their batches, has {size(shared)} free"
    batches = _batches(named)
    if batches is not None and batches <= number:
        number, why = (batches, f"there are {batches} batches") if batches > 1 else (0, "there is no second batch")
    return _within_memory(number, why, dataset, processes)


def _within_memory(number: int, why: str, dataset: Any, processes: int) -> tuple[int, str]:
    """As many as half of what is free has room for, if each comes to copy the dataset's Python objects."""
    copied, free = copied_bytes(dataset), _room.memory()
    if not number or not copied or free is None:
        return number, why
    room = free // 2 // processes // copied
    if room >= number:
        return number, why
    return room, f"each may come to copy {size(copied)} of the dataset, and {size(free)} are free"


def _in_memory(dataset: Any) -> bool:
    if isinstance(dataset, Subset):
        return _in_memory(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return all(map(_in_memory, dataset.datasets))
    if type(dataset).__module__.partition(".")[0] == "numpy":
        return True
    return isinstance(dataset, TensorDataset | list | tuple | range | torch.Tensor)


def _batches(named: dict[str, Any]) -> int | None:
    """How many batches a loader has; None where nobody knows."""
    sampler: Any = named.get("batch_sampler")
    size: Any = 1
    if sampler is None:
        sampler, size = named.get("sampler"), named.get("batch_size", 1)
        sampler = named["dataset"] if sampler is None else sampler
        size = 1 if size is None else size
    if not isinstance(sampler, Sized):
        return None
    try:
        length = len(sampler)
        return int(length // size if named.get("drop_last") else -(-length // size))
    except Exception:
        return None  # whatever a sampler says to this; and what torch refuses, it refuses itself
