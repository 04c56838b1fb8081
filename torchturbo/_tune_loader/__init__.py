"""The settings with which a data loader keeps up, found by measuring on the user's own dataset."""

from __future__ import annotations

from typing import Any, cast

from torchturbo._tune_loader.data import Growth, LoaderTuning, TriedLoader
from torchturbo._words import seconds_of
from torchturbo.errors import OptionValueError, TargetError

__all__ = ["Growth", "LoaderTuning", "TriedLoader", "tune_loader"]


def tune_loader(
    loader: Any,
    budget: float | str = "1 min",
    *,
    step_seconds: float | None = None,
    batches: int | None = None,
    **options: Any,
) -> LoaderTuning:
    """Measures how many workers a data loader should have, how far they should be ahead, and whether they should stay.

    Candidates are visited in turn, each on a piece of an epoch of your own dataset, with your sampler's indices, your
    batch size and your ``collate_fn``: how fast batches come, how long the first one takes, and what memory this
    process and the workers need. The fewest workers are chosen whose epochs are as short as the shortest, within five
    percent. Then the best goes through several epochs, to see whether its memory grows.

    Everything is as it was afterwards: random streams, the loader, its dataset and its sampler; no worker is left.
    Ctrl-C ends the search, and the best so far is returned.

    >>> import torchturbo
    >>> found = torchturbo.tune_loader(list(range(64)), "1 s", batch_size=8)
    >>> found.best
    {'num_workers': 0, 'pin_memory': False}

    Args:
        loader: a `torch.utils.data.DataLoader`, whose settings are what the others are compared with; or a dataset.
        budget: how long it may take, in seconds or as ``"90 s"``, ``"2 min"`` or ``"1 h"``. A batch that takes longer
            than that by itself is waited for, and the first visits are made in any case.
        step_seconds: what your step takes for a batch, in seconds. Then the workers are enough with which it does not
            wait any more.
        batches: of an epoch of yours; None for what the loader says. The shorter it is, the more does starting count.
        **options: arguments of `DataLoader`, for a dataset: ``batch_size``, ``collate_fn``, ``sampler`` ...

    Raises:
        TargetError: it is neither a data loader nor a dataset, or has no batches.
        OptionValueError: a time or a number that cannot be, or options beside a loader.
        RanksError: it is one of several processes that train together, and another one has not come to this, is asked
            for something else, or has raised.
        RestoreError: something of the dataset or its sampler did not go back.

    Whatever the dataset raises in this process comes out as it is.
    """
    seconds = seconds_of(budget, "budget")
    step, count = cast("Any", step_seconds), cast("Any", batches)
    if step is not None and not (isinstance(step, int | float) and step > 0):
        raise OptionValueError(f"step_seconds={step_seconds!r}: expected the seconds that a step takes, as 0.05")
    if count is not None and not (isinstance(count, int) and count >= 1):
        raise OptionValueError(f"batches={batches!r}: expected how many batches an epoch has, at least 1")
    # What it needs is loaded when it is needed.
    from torchturbo._together import agreed, together
    from torchturbo._told import progress
    from torchturbo._tune_loader.loaders import Source
    from torchturbo._tune_loader.search import search

    source = Source(_loader(loader, options), batches)
    asked = {"budget": seconds, "step_seconds": step_seconds, "batches": batches}
    with together("tune_loader", **asked), progress("tune_loader") as tell, source.kept():

        def found() -> LoaderTuning:
            if not source.draw():
                raise TargetError(f"there is nothing to measure: {loader!r} has no batches")
            return search(source, seconds, step_seconds, tell, type(source.loader.dataset).__name__)

        result: LoaderTuning = agreed(source.apart(found))
    return result


def _loader(loader: Any, options: dict[str, Any]) -> Any:
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(loader, DataLoader):
        if options:
            raise OptionValueError(
                f"{', '.join(options)}: a data loader has its settings already; give options with a dataset, as "
                "tune_loader(dataset, batch_size=32)"
            )
        return loader
    ordered = "sampler" in options or "batch_sampler" in options
    indexed = hasattr(type(loader), "__getitem__") and (ordered or _has_length(loader))
    if isinstance(loader, str) or not (indexed or isinstance(loader, IterableDataset)):
        raise TargetError(
            f"tune_loader() takes a torch.utils.data.DataLoader or a dataset, and {loader!r} is neither: give what is "
            "within it, or let it be an IterableDataset"
        )
    return DataLoader(loader, **options)


def _has_length(data: Any) -> bool:
    try:
        return len(data) >= 0
    except TypeError:  # it has none, as a tensor of one number
        return False
