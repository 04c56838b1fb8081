"""Data loaders in a block with a seed: the same order and the same augmentations, whoever fetches the batches.

Each batch is fetched in streams of its own, which come of the seed, the loader, the epoch and the number of the batch;
and the sampler draws in streams of its own too, however far ahead it is asked. So nothing depends on how many workers
there are, and nothing of it is drawn from the streams of the code around.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import dataloader, distributed, get_worker_info, sampler

from torchturbo._dynamo import untraced
from torchturbo.errors import DeterminismWarning
from torchturbo.regions._arriving import Arriving
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._epochs import Epoch
from torchturbo.regions._seeding import now
from torchturbo.regions._streams import Once, seeds
from torchturbo.settings._base import Write

Within = Callable[[tuple[Write, ...], Callable[[], Any]], Any]
GoingOn = Callable[[tuple[Write, ...], Callable[[], Any]], tuple[Any, tuple[Write, ...]]]


class _Layers:
    """How streams are taken out of the process for a while; given by what keeps the layers, which is above this.

    Attributes:
        within: does something while some cells hold something, and returns what comes of it.
        going_on: so too, and returns what they hold then as well.
    """

    within: Within
    going_on: GoingOn


layers = _Layers()


class _Thread(threading.local):
    starting: Epoch | None = None
    """The iteration that is being started."""
    fetching = False
    """Whether a batch is being fetched: what is iterated in there draws from the batch's streams."""


_thread = _Thread()
_epochs: WeakKeyDictionary[Any, Epoch] = WeakKeyDictionary()
"""Of each iterator of torch's that was started in a block with a seed, where it is."""

_DRAWS_ONCE = (
    sampler.SequentialSampler,
    sampler.RandomSampler,
    sampler.SubsetRandomSampler,
    sampler.WeightedRandomSampler,
    distributed.DistributedSampler,
)
"""Samplers that draw from the streams before their first index, and never again."""


def _draws_on(sampling: Any) -> bool:
    if type(sampling) is sampler.BatchSampler:
        sampling = sampling.sampler
    return type(sampling) not in _DRAWS_ONCE


def _next_epoch(loader: Any) -> Epoch | None:
    """The next iteration over a loader, or None where it is to be left to torch."""
    if now.seeding is None or _thread.fetching or get_worker_info() is not None:
        return None
    return now.seeding.epoch(loader)


@untraced
def _start(loader: Any) -> Any:
    """`DataLoader._get_iterator`: a new iteration, perhaps with new workers."""
    epoch = _next_epoch(loader)
    if epoch is None:
        return _STARTS.theirs(loader)
    outer, _thread.starting = _thread.starting, epoch
    try:
        iterator, stood = layers.going_on(epoch.start, lambda: _STARTS.theirs(loader))
    finally:
        _thread.starting = outer
    if loader.num_workers == 0:
        epoch.sampling = stood
        _known(iterator, epoch, loader)
    return iterator


@untraced
def _start_again(iterator: Any, loader: Any, first_iter: bool = False) -> None:
    """`_BaseDataLoaderIter._reset`: what an iteration starts with in the main process, where there are workers."""
    epoch = _thread.starting if first_iter else _next_epoch(loader)
    if epoch is None:
        _epochs.pop(iterator, None)
        _RESETS.theirs(iterator, loader, first_iter)
        return

    def start() -> None:
        _RESETS.theirs(iterator, loader, first_iter)
        if loader.generator is None:
            # Where there are no workers, torch draws their seed here; so the sampler finds the same stream.
            torch.empty((), dtype=torch.int64).random_()

    _, epoch.sampling = layers.going_on(epoch.start, start)
    _known(iterator, epoch, loader)
    if not first_iter and iterator._dataset_kind == dataloader._DatasetKind.Iterable:
        # Each worker makes a new iterator of its dataset when it is told to go on, which may draw.
        seed = epoch.seed_of("start")
        iterator._shared_seed = Arriving(iterator._shared_seed, seed, own_init=epoch.own_init, each=True)


def _known(iterator: Any, epoch: Epoch, loader: Any) -> None:
    if loader.generator is not None:
        epoch.comes_of(iterator._base_seed)
    epoch.goes_through(iterator)
    _epochs[iterator] = epoch


def epoch_of(iterator: Any) -> Epoch | None:
    """The iteration that an iterator of torch's is in, or None where that was started outside of such a block."""
    epoch = _epochs.get(iterator)
    return epoch if epoch is not None and epoch.indices is iterator._sampler_iter else None


@untraced
def _next_index(iterator: Any) -> Any:
    """`_BaseDataLoaderIter._next_index`: what the sampler says next."""
    epoch = epoch_of(iterator)
    if epoch is None:
        return _INDICES.theirs(iterator)
    if isinstance(iterator._shared_seed, Arriving):
        iterator._shared_seed = iterator._shared_seed.value
    _pass_over(iterator, epoch)
    number, index = epoch.batch, _drawn(iterator, epoch)
    if iterator._num_workers == 0:
        return index
    return Arriving(index, epoch.seed_of(number), own_init=epoch.own_init)


def _drawn(iterator: Any, epoch: Epoch) -> Any:
    try:
        if epoch.batch and not _draws_on(iterator._index_sampler):
            index = _INDICES.theirs(iterator)
        else:
            index, epoch.sampling = layers.going_on(epoch.sampling, lambda: _INDICES.theirs(iterator))
    except StopIteration:
        epoch.draws(end=True)
        raise
    epoch.draws()
    return index


def _pass_over(iterator: Any, epoch: Epoch) -> None:
    """Draws the indices of batches that a run before this one has had, which nobody has to fetch."""
    if iterator._dataset_kind == dataloader._DatasetKind.Map:
        while epoch.skip:
            epoch.skip -= 1
            _drawn(iterator, epoch)


@untraced
def _fetch(iterator: Any) -> Any:
    """`_SingleProcessDataLoaderIter._next_data`: a batch, fetched by this process."""
    epoch = epoch_of(iterator)
    if epoch is None:
        return _FETCHES.theirs(iterator)

    def fetch() -> Any:
        _pass_over(iterator, epoch)
        outer, _thread.fetching = _thread.fetching, True
        try:
            return layers.within(seeds(epoch.seed_of(epoch.batch), Once), lambda: _FETCHES.theirs(iterator))
        finally:
            _thread.fetching = outer

    return _had(epoch, fetch)


@untraced
def _receive(iterator: Any) -> Any:
    """`_MultiProcessingDataLoaderIter._next_data`: a batch, fetched by a worker."""
    epoch = epoch_of(iterator)
    if epoch is None:
        return _RECEIVES.theirs(iterator)
    return _had(epoch, lambda: _RECEIVES.theirs(iterator))


def _had(epoch: Epoch, fetch: Callable[[], Any]) -> Any:
    """The next batch that the code has not had."""
    resumed = epoch.skip
    try:
        result = fetch()
        while epoch.skip:
            epoch.skip -= 1
            result = fetch()
    except StopIteration:
        epoch.taken(over=True)
        if resumed:
            warnings.warn(
                "the state that was loaded was saved at the last batch of a data loader whose length nobody knows: "
                "this iteration is an empty one. Save such states after the loop",
                DeterminismWarning,
                stacklevel=2,
            )
        raise
    epoch.taken()
    return result


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    call: Any = "ours"
    return call(self, *args, **kwargs)


def _exchange(function: Any, ours: Callable[..., Any]) -> Exchange:
    return Exchange(function, code_like(function, _standing_in, ours))


_STARTS = _exchange(dataloader.DataLoader._get_iterator, _start)
_RESETS = _exchange(dataloader._BaseDataLoaderIter._reset, _start_again)
_INDICES = _exchange(dataloader._BaseDataLoaderIter._next_index, _next_index)
_FETCHES = _exchange(dataloader._SingleProcessDataLoaderIter._next_data, _fetch)
_RECEIVES = _exchange(dataloader._MultiProcessingDataLoaderIter._next_data, _receive)

now.exchanges = _STARTS, _RESETS, _INDICES, _FETCHES, _RECEIVES
