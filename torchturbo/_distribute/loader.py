"""`shard`: each rank's part of a data loader. No sample is lost, and none counts twice."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, Sampler
from torch.utils.data.distributed import DistributedSampler
from torch.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

from torchturbo._distribute.group import joined
from torchturbo._distribute.weights import Iteration
from torchturbo.errors import TargetError
from torchturbo.regions._epochs import noted
from torchturbo.regions._loading import epoch_of

BatchSize = Literal["per_rank", "in_all"]
T = TypeVar("T", bound=DataLoader[Any])


def part(samples: Sequence[Any], rank: int, ranks: int) -> tuple[list[Any], float]:
    """A rank's part of the samples of a step, and what it counts for in a mean over ranks.

    Args:
        samples: all of them, at least one.
        rank: which part.
        ranks: how many parts.
    """
    size, more = divmod(len(samples), ranks)
    begin = rank * size + min(rank, more)
    mine = list(samples[begin : begin + size + (rank < more)])
    # Who has none takes part all the same, with one that counts for nothing.
    return mine or [samples[0]], len(mine) * ranks / len(samples)


class _Parts(Sampler[list[Any]]):
    """Of the batches of another sampler this rank's.

    Args:
        batches: the batches of one process.
        rank: which part.
        ranks: how many parts.
        together: the batches that make one step.
        drops: whether steps that are not whole are left out.

    Attributes:
        counts: what the parts that have been given count for, oldest first.
    """

    def __init__(self, batches: BatchSampler, rank: int, ranks: int, together: int, drops: bool) -> None:
        self.batches, self.rank, self.ranks, self.together, self.drops = batches, rank, ranks, together, drops
        self.counts: deque[float] = deque()

    def __iter__(self) -> Iterator[list[Any]]:
        counts = self.counts = deque()
        samples: list[Any] = []
        held = 0
        for batch in self.batches:
            samples += batch
            held += 1
            if held == self.together:
                mine, count = part(samples, self.rank, self.ranks)
                counts.append(count)
                yield mine
                samples, held = [], 0
        if samples and not self.drops:
            mine, count = part(samples, self.rank, self.ranks)
            counts.append(count)
            yield mine

    def __len__(self) -> int:
        whole, rest = divmod(len(self.batches), self.together)
        return whole + bool(rest and not self.drops)


class Sharded(DataLoader[Any]):
    """A rank's part of a data loader; made by `shard`.

    Args:
        loader: the data loader of one process.
        rank: which part.
        ranks: how many parts.
        batch_size: what its batch size is of: ``"per_rank"`` or ``"in_all"``.
        seed: where the order comes from, if the loader has no generator; the same on all ranks.

    Attributes:
        epoch: the next iteration's number; each iteration counts it on.
    """

    def __init__(self, loader: DataLoader[Any], rank: int, ranks: int, batch_size: BatchSize, seed: int) -> None:
        self.epoch = 0
        self._seed = seed
        self._began: dict[str, Any] | None = None
        self._shared = loader.generator if loader.generator is _generator(loader) else None
        batches, self._draws, self._turned = _in_one_order(loader)
        together = ranks if batch_size == "per_rank" else 1
        self._parts = _Parts(batches, rank, ranks, together, bool(getattr(batches, "drop_last", False)))
        workers: dict[str, Any] = {}
        if loader.num_workers:
            workers = {
                "prefetch_factor": loader.prefetch_factor,
                "persistent_workers": loader.persistent_workers,
                "multiprocessing_context": loader.multiprocessing_context,
                "timeout": loader.timeout,
            }
        if not getattr(loader, "in_order", True):
            raise TargetError("shard takes loaders that keep their order: in_order=False would part counts and batches")
        super().__init__(
            loader.dataset,
            batch_sampler=self._parts,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            **workers,
        )

    def set_epoch(self, epoch: int) -> None:
        """Has the next iteration be that of an epoch, for a run that goes on.

        Args:
            epoch: its number, from 0.
        """
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where its order comes from, for a checkpoint: of the iteration under way, or else of the next."""
        drawn = self._shared or _generator_of(self._parts.batches)
        state = None if drawn is None or self._draws is not None else drawn.get_state()
        return dict(self._began or {"epoch": self.epoch, "seed": self._seed, "generator": state})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Has the next iteration have the order of another run's; its beginning, if no block with a seed goes on in it.

        Args:
            state: what ``state_dict()`` has returned, on any rank.
        """
        self.epoch, self._seed, self._began = state["epoch"], state["seed"], None
        drawn = self._shared or _generator_of(self._parts.batches)
        if state["generator"] is not None and drawn is not None and self._draws is None:
            drawn.set_state(state["generator"])

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._began = None
        began = self._began = self.state_dict()
        if self._draws is not None:
            # Far apart, so that epochs of one seed are not those of its neighbours.
            self._draws.manual_seed((self._seed + 0x9E3779B97F4A7C15 * self.epoch) % 2**63)
        for each in self._turned:
            each.set_epoch(self.epoch)
        self.epoch += 1
        if self._shared is not None:
            # One process draws its workers' seed of it before each order; here workers have the seeds of their rank.
            torch.empty((), dtype=torch.int64).random_(generator=self._shared)
        counts: deque[float] | None = None
        iteration = Iteration()
        batches = super().__iter__()
        resumed = epoch_of(batches)
        passed = 0 if resumed is None else resumed.had
        try:
            for batch in batches:
                if counts is None:
                    # Another one for each iteration, which is there once a batch is.
                    counts = self._parts.counts
                    for _ in range(passed):
                        counts.popleft()
                noted(partial(iteration.counts, counts.popleft()))
                yield batch
            noted(partial(self._ended, iteration, began))
        except BaseException:
            self._ended(iteration, began)
            raise

    def _ended(self, iteration: Iteration, began: dict[str, Any]) -> None:
        iteration.ends()
        if self._began is began:
            self._began = None


def shard(loader: T, *, batch_size: BatchSize = "per_rank") -> T:
    """This rank's part of a data loader; in one process the loader as it is.

    All ranks go through one order, in equally many steps. Where the samples of a step do not divide (the last one of
    an epoch), parts differ by one sample at most, and models of `distribute` weigh the gradients so that their mean is
    that of one process with all of them. An epoch has an order of its own without `set_epoch`.

    Args:
        loader: a `torch.utils.data.DataLoader` with a dataset of known length, made as for one process.
        batch_size: what the loader's batch size is of. ``"per_rank"``: each rank gets batches of that size, and a step
            is of as many times more samples as there are ranks. ``"in_all"``: all ranks together get the batches
            that one process would get, with the same samples in each.

    Raises:
        TargetError: it is no `DataLoader`, or one whose order or parts nobody can know; the message says what to write.

    >>> import torch
    >>> loader = DataLoader(torch.arange(10), batch_size=4)
    >>> shard(loader) is loader  # in one process
    True
    """
    if batch_size not in ("per_rank", "in_all"):
        raise TargetError(f"batch_size is 'per_rank' or 'in_all', and not {batch_size!r}")
    _refuse(loader)
    ranks = joined(None, None)
    if ranks is None:
        return loader
    found: list[Any] = [None, None]
    if ranks.rank == 0:
        generator = _generator(loader)
        found = [int(torch.empty((), dtype=torch.int64).random_().item()) if generator is None else 0]
        found.append(None if generator is None else generator.get_state())
    dist.broadcast_object_list(found, src=0)
    if (generator := _generator(loader)) is not None:
        generator.set_state(found[1])
    return Sharded(loader, ranks.rank, ranks.ranks, batch_size, found[0])  # type: ignore[return-value]


def _sampler(loader: DataLoader[Any]) -> Any:
    """What the order comes from: `loader.sampler` is another one where the loader was given a `batch_sampler`."""
    batches = loader.batch_sampler
    return batches.sampler if type(batches) is BatchSampler else loader.sampler


def _generator(loader: Any) -> torch.Generator | None:
    found = getattr(_sampler(loader), "generator", None)
    return found if isinstance(found, torch.Generator) else None


def _generator_of(batches: Any) -> torch.Generator | None:
    found = getattr(getattr(batches, "sampler", None), "generator", None)
    return found if isinstance(found, torch.Generator) else None


def _in_one_order(loader: DataLoader[Any]) -> tuple[Any, torch.Generator | None, list[Any]]:
    """The batches of a loader, a generator to be seeded for each epoch, and samplers that are told its number."""
    batches: Any = loader.batch_sampler
    turned = [each for each in (_sampler(loader), batches) if hasattr(each, "set_epoch")]
    if _generator(loader) is not None or not hasattr(_sampler(loader), "generator"):
        return batches, None, turned
    draws = torch.Generator()
    sampler = copy.copy(_sampler(loader))
    sampler.generator = draws
    batches = copy.copy(batches)
    batches.sampler = sampler
    return batches, draws, turned


def _refuse(loader: Any) -> None:
    if not isinstance(loader, DataLoader):
        raise TargetError(f"shard takes a torch.utils.data.DataLoader, and this is a {type(loader).__name__}")
    if isinstance(loader, Sharded) or isinstance(_sampler(loader), DistributedSampler):
        raise TargetError(
            "this loader is one rank's part already: give shard() the one that is made as for one process"
        )
    if isinstance(loader.dataset, IterableDataset):
        raise TargetError(
            "an IterableDataset is not sharded, since nobody knows what it gives: have its __iter__ give this rank's "
            "items, itertools.islice(items, rank * workers + worker, None, ranks * workers) with the rank of "
            "torch.distributed.get_rank() and the worker of torch.utils.data.get_worker_info()"
        )
    if loader.batch_sampler is None:
        raise TargetError("shard takes loaders that make batches: give the DataLoader a batch_size, or a batch_sampler")
    orders = (_sampler(loader), loader.batch_sampler)
    known = type(loader.batch_sampler) is BatchSampler and (
        isinstance(_sampler(loader), SequentialSampler | RandomSampler) or hasattr(_sampler(loader), "generator")
    )
    if not known and not any(hasattr(each, "set_epoch") for each in orders):
        raise TargetError(
            f"{type(_sampler(loader)).__name__} may give each rank another order, and so lose samples: give it a "
            "`generator` that it draws by, or a method `set_epoch(number)` that its order follows from"
        )
