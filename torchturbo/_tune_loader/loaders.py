"""Loaders that load what one of the user's loads, each with other settings, and leave that one as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from torchturbo._replay.kept import Keeper
from torchturbo._replay.search import Search
from torchturbo._turbo import _within
from torchturbo.regions._arguments import CELLS
from torchturbo.regions._iterated import PREFETCHING
from torchturbo.regions._seeding import SEEDING
from torchturbo.regions._streams import streams
from torchturbo.regions._workers import reason_against
from torchturbo.settings._edits import always, keep

Options = Mapping[str, Any]
_MOST, _SAMPLES = 10_000, 200_000
"""Batches whose indices are drawn, at most, and samples: they are memory that workers would come to copy."""
_UNKNOWN = 1000
"""Batches that an epoch is taken to have where nobody says."""


class Source:
    """What a loader loads.

    Args:
        loader: the user's.
        batches: of an epoch, if that is said.

    Attributes:
        baseline: its settings.
        named: what it loads, as a call of `DataLoader` names it.
        no_workers: why no worker would get its data right, as a sentence, or None.
        batches: of an epoch.
        knows: whether that is known.
    """

    def __init__(self, loader: Any, batches: int | None) -> None:
        self.loader = loader
        self.baseline = settled(
            num_workers=loader.num_workers,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            pin_memory=loader.pin_memory,
        )
        self._streamed = isinstance(loader.dataset, IterableDataset)
        self.named = {name: getattr(loader, name) for name in ("dataset", "collate_fn", "worker_init_fn")}
        self.named["multiprocessing_context"] = loader.multiprocessing_context
        # Who gives an iterable dataset to workers says by that that it shares its samples out among them.
        self.no_workers = None if self._streamed and loader.num_workers else reason_against(self.named)
        self.batches, self.knows = _length(loader, batches)
        self._indices: list[Any] = []

    def draw(self) -> bool:
        """Draws the indices of an epoch, once for all candidates, and returns whether there are any."""
        drawn = 0
        for indices in () if self._streamed else islice(self.loader._index_sampler, _MOST):
            self._indices.append(indices)
            drawn += len(indices) if isinstance(indices, list | tuple) else 1
            if drawn >= _SAMPLES:
                break
        return self._streamed or bool(self._indices)

    def made(self, options: Options) -> Any:
        """A loader with other settings.

        Args:
            options: the settings.
        """
        loader = self.loader
        given: dict[str, Any] = {
            "collate_fn": loader.collate_fn,
            "worker_init_fn": loader.worker_init_fn,
            "in_order": loader.in_order,
            **options,
        }
        if options["num_workers"]:
            given |= {"timeout": loader.timeout, "multiprocessing_context": loader.multiprocessing_context}
        if self._streamed:
            given |= {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
        elif loader.batch_sampler is not None:
            given["batch_sampler"] = self._indices
        else:
            given |= {"batch_size": None, "sampler": self._indices}
        with more_workers_than_cores():
            return DataLoader(loader.dataset, **given)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block after which the loader, its dataset and its sampler are as they were."""
        keeper = Keeper()
        Search(keeper).of("loader", self.loader)
        try:
            keeper.begin()
            yield
        finally:
            keeper.put_back()

    def apart(self, act: Any) -> Any:
        """Does something apart from the blocks that are open here, after which random streams stand where they stood.

        Args:
            act: what to do.
        """
        asked = [(cell, always(None)) for cell in (SEEDING, PREFETCHING, *CELLS.values())]
        return _within((*asked, *((cell, keep) for cell in streams())), act)


def settled(**options: Any) -> dict[str, Any]:
    """The settings of a loader; what is about workers only where there are some."""
    if not options["num_workers"]:
        return {"num_workers": 0, "pin_memory": options["pin_memory"]}
    return {name: options[name] for name in ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")}


def _length(loader: Any, batches: int | None) -> tuple[int, bool]:
    if batches is not None:
        return batches, True
    try:
        return max(1, len(loader)), True
    except Exception:  # whatever an iterable dataset says to this
        return _UNKNOWN, False


@contextmanager
def more_workers_than_cores() -> Iterator[None]:
    """A block in which torch does not say that there are more workers than cores: that is to be found out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield
