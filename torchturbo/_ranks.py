"""Several processes that train together decide alike: what is asked for is rank 0's, and the hardware is what all have.

Decisions are a pure function of these two, so that nothing else has to be agreed on. Each process puts what it knows
into the store in which torchrun's processes find each other, once, and reads what the others have put there.
"""

from __future__ import annotations

import pickle
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from torch.utils.data import get_worker_info

from torchturbo import _sources, hardware
from torchturbo._sources import Given, Sources
from torchturbo.errors import RanksError, RanksWarning
from torchturbo.hardware import Cpu, Gpu, Hardware, Xpu, place
from torchturbo.hardware._ranks import AT_LAUNCH, of_group, store

AT_ENTRY = timedelta(seconds=10)
"""How long the first block waits for those of the other ranks, which may never have one."""
T = TypeVar("T", Cpu, Xpu)
_CAN = {kind: [each.name for each in fields(kind) if str(each.type).startswith("bool")] for kind in (Cpu, Xpu)}
"""What these can do or not."""


@dataclass(frozen=True, slots=True)
class Known:
    """What one process knows.

    Attributes:
        host: the machine that it runs on, by name.
        hardware: what that is.
        sources: what others than the code ask for there.
    """

    host: str
    hardware: Hardware
    sources: Sources


# ------------------------------------------------------------------------------------------------ what all have, purely


def common(known: Sequence[Known], rank: int) -> Hardware:
    """A rank's hardware, but for what some other one's cannot do; the very same where they all can do what it can.

    Args:
        known: what each rank knows, in their order.
        rank: whose.

    Raises:
        RanksError: some work on GPUs and others do not.
    """
    here = known[rank].hardware
    kinds = {each.hardware.device_type: number for number, each in reversed(list(enumerate(known)))}
    if len(kinds) > 1:
        told = " and ".join(
            f"rank {number} on {known[number].host} has {kind}" for kind, number in sorted(kinds.items())
        )
        raise RanksError(
            f"the ranks work on devices of different types: {told}. Start them where all have the same, or hide the "
            "GPUs of those that have some (CUDA_VISIBLE_DEVICES=)"
        )
    reasons: list[str] = []
    gpus = _least_gpus(known, here.gpus, reasons)
    (cpu,) = _what_all_can([(each.hardware.cpu,) for each in known], rank, reasons)
    xpus = _what_all_can([each.hardware.xpus for each in known], rank, reasons)
    builds = {each.hardware.build.torch: number for number, each in reversed(list(enumerate(known)))}
    if len(builds) > 1:
        told = " and ".join(f"rank {number} has {version}" for version, number in sorted(builds.items()))
        reasons.append(f"the ranks run different versions of torch: {told}")
    less = replace(here, gpus=gpus, cpu=cpu, xpus=xpus, reasons=(*here.reasons, *reasons))
    return here if less == here else less


def _least_gpus(known: Sequence[Known], mine: tuple[Gpu, ...], reasons: list[str]) -> tuple[Gpu, ...]:
    def can(gpu: Gpu) -> tuple[tuple[int, int], bool]:
        return gpu.capability or (0, 0), gpu.has_fp16_tensor_cores

    all_of_them = [(gpu, number) for number, each in enumerate(known) for gpu in each.hardware.gpus]
    if not all_of_them:
        return mine
    least, its_rank = min(all_of_them, key=lambda each: can(each[0]))
    smallest = min((gpu.memory for gpu, _ in all_of_them if gpu.memory is not None), default=None)
    if max(can(gpu) for gpu, _ in all_of_them) > can(least):
        reasons.append(
            f"not every rank has the same GPUs: rank {its_rank} on {known[its_rank].host} has {least.name}, and every "
            "rank does what that one can"
        )
    return tuple(
        replace(
            gpu,
            name=f"{least.name} (rank {its_rank})" if can(gpu) > can(least) else gpu.name,
            capability=least.capability if can(gpu) > can(least) else gpu.capability,
            memory=gpu.memory if gpu.memory is None else smallest,
        )
        for gpu in mine
    )


def _what_all_can(devices: Sequence[tuple[T, ...]], rank: int, reasons: list[str]) -> tuple[T, ...]:
    """A rank's processors, without what some other one's cannot do.

    Args:
        devices: those of each rank, of one kind.
        rank: whose.
        reasons: gets a sentence about what they are without.
    """
    lacking: dict[str, str] = {}
    for name in {name: None for its in devices for each in its for name in _CAN[type(each)]}:
        without = [(number, each) for number, its in enumerate(devices) for each in its if not getattr(each, name)]
        if 0 < len(without) < sum(map(len, devices)):
            number, its_device = without[0]
            lacking[name] = f"{name}: not rank {number} ({its_device.name})"
    if not lacking:
        return devices[rank]
    told = "; ".join(lacking.values())
    reasons.append(f"not every rank's processor can do the same, and every rank does what all can: {told}")
    less: dict[str, Any] = dict.fromkeys(lacking, False)
    return tuple(replace(each, **less) for each in devices[rank])


def of_rank_0(theirs: Sources, mine: Sources) -> tuple[Sources, list[str]]:
    """What rank 0 is asked for, as another rank's report tells it, and what this one was asked for otherwise.

    Args:
        theirs: rank 0's.
        mine: the other rank's.
    """
    different = [field.name for field in fields(Sources) if getattr(theirs, field.name) != getattr(mine, field.name)]
    if not different:
        return mine, []
    told = []
    for level in ("file", "environment", "command"):
        asked: Mapping[str, Given] = getattr(mine, level)
        its: Mapping[str, Given] = getattr(theirs, level)
        names = [name for name in {**asked, **its} if asked.get(name) != its.get(name)]
        told += [
            f"{name}={asked[name].value!r} ({asked[name].origin})" if name in asked else f"no {name}" for name in names
        ]
    if mine.profile != theirs.profile:
        told.append(f"profile {mine.profile[0].name} ({mine.profile[1]})" if mine.profile else "no other profile")
    if mine.disabled != theirs.disabled:
        told.append(mine.disabled or "that torchturbo is on")

    def there(asked: Mapping[str, Given]) -> dict[str, Given]:
        return {name: Given(value, f"{origin}, on rank 0") for name, (value, origin) in asked.items()}

    seen = replace(
        theirs,
        file=there(theirs.file),
        environment=there(theirs.environment),
        command=there(theirs.command),
        profile=theirs.profile and (theirs.profile[0], f"{theirs.profile[1]}, on rank 0"),
    )
    return seen, told or ["other profiles in its file"]


# ---------------------------------------------------------------------------------------------------- between processes

distributed: Any = torch.distributed
_settled = False


def settled() -> bool:
    """Whether there is nothing to agree on, or no more."""
    return _settled or of_group().size == 1 or get_worker_info() is not None


def agree_at_entry() -> None:
    """Agrees with the other ranks of the process group, whose first blocks are entered at about the same time.

    Where they are not, this one decides alone, after `AT_ENTRY` and with a `RanksWarning`.

    Raises:
        RanksError: the ranks cannot do the same.
    """
    global _settled
    _settled = True
    store = distributed.distributed_c10d._get_default_store()
    try:
        _agree(store, AT_ENTRY)
    except _Missing as error:
        distributed.PrefixStore("torchturbo", store).set(f"{place().rank} alone", "")
        warnings.warn(
            f"{error.told} has entered no block of torchturbo's within {AT_ENTRY.seconds} seconds of rank "
            f"{place().rank}'s first, which so decides by what its own machine can do. Enter the first block on every "
            "rank, or start them by `torchrun -m torchturbo run`",
            RanksWarning,
            stacklevel=5,
        )


def agree_at_launch() -> None:
    """Agrees with the other processes that torchrun, or whoever sets its variables, has started; if there are any."""
    if (found := store()) is not None:
        agree_by(found)


def agree_by(store: Any) -> None:
    """Agrees with the others, where that is not settled.

    Args:
        store: where they find each other.

    Raises:
        RanksError: the ranks cannot do the same, or some have not come.
    """
    global _settled
    if _settled:
        return
    _settled = True
    try:
        _agree(store, AT_LAUNCH)
    except _Missing as error:
        raise RanksError(
            f"{error.told} of {place().size} has not come within {AT_LAUNCH.seconds // 60} minutes: it has ended, or "
            "cannot reach MASTER_ADDR"
        ) from None


class _Missing(Exception):
    """Some ranks have not told what they know.

    Args:
        ranks: which.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__(ranks)
        self.told = named(ranks)


def named(ranks: Sequence[int]) -> str:
    """Some ranks, in words that a verb in the singular follows.

    Args:
        ranks: at least one.
    """
    shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"each of the ranks {shown}"


def _agree(store: Any, timeout: timedelta) -> None:
    here = place()
    mine = Known(socket.gethostname(), hardware.detect(), _sources.sources())
    store = distributed.PrefixStore("torchturbo", store)
    store.set(str(here.rank), pickle.dumps(mine))
    keys = [str(rank) for rank in range(here.size)]
    try:
        store.wait(keys, timeout)
    except RuntimeError:  # a FileStore has no error of torch.distributed's for it
        raise _Missing([rank for rank, key in enumerate(keys) if not store.check([key])]) from None
    known: list[Known] = [pickle.loads(store.get(key)) for key in keys]
    _settle(known, here.rank)
    if alone := [key for key in keys if key != str(here.rank) and store.check([f"{key} alone"])]:
        warnings.warn(
            f"rank {alone[0]} waited in vain for rank {here.rank}'s first block, and has decided by what its own "
            "machine can do, which may not be what is in force here. Enter the first block on every rank at about the "
            "same time",
            RanksWarning,
            stacklevel=5,
        )


def _settle(known: Sequence[Known], rank: int) -> None:
    found = common(known, rank)
    asked, otherwise = of_rank_0(known[0].sources, _sources.sources())
    if otherwise:
        warnings.warn(
            f"rank {rank} is asked for {'; '.join(otherwise)}, and rank 0 is not: every rank does what rank 0 is asked "
            "for. Set variables and files alike on all of them",
            RanksWarning,
            stacklevel=6,
        )
        _sources.settle(asked)
    # What Intel's GPUs will say of themselves once they have started would be told to no other rank any more.
    if found is not known[rank].hardware or otherwise or any(xpu.bf16 is None for xpu in found.xpus):
        hardware.agreed_on(found)
