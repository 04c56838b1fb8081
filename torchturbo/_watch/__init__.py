"""`watch`: what a loop does with its time, while it runs, and why if the machine waits for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from torch.utils.data import get_worker_info

from torchturbo._dynamo import untraced
from torchturbo._watch.data import Loop, Seen
from torchturbo._watch.run import Run, run_of
from torchturbo._watch.timeline import here
from torchturbo._watch.voice import Options, Show, Voice
from torchturbo.errors import TargetError

__all__ = ["Loop", "Seen", "Watched", "taken", "watch"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def watch(
    loader: Iterable[T],
    *,
    name: str | None = None,
    every: float = 1.0,
    alert: float | None = 0.7,
    after: float = 10.0,
    show: Show | None = "auto",
    say_every: float = 30.0,
    to: str | Path | IO[str] | None = None,
) -> Watched[T]:
    """A loader whose loops tell what they do with their time: a bar in a terminal, a line now and then elsewhere.

    It gives the very same batches, again and again, and has the loader's length and attributes. A loop in a loop is
    shown beneath it. Nothing is left behind when a loop ends, is left or raises.

    Once, when the machine is not busy, a `WatchWarning` says what it waits for, with what was measured and the lines
    that take the time. How busy it is is the GPU's utilisation, by NVML; without one, the share of the time in which
    the loop did not wait for data.

    >>> loader = watch([1, 2, 3], show=None)
    >>> [2 * batch for batch in loader], len(loader), loader.seen.loops[0].steps
    ([2, 4, 6], 3, 3)

    Args:
        loader: what a loop goes through.
        name: what it is called; without one, its dataset's class.
        every: seconds between two looks at the machine.
        alert: utilisation, 0 to 1, below which there is an alert; None for none.
        after: seconds that it has to stay below.
        show: ``"bar"``, ``"lines"``, ``"json"`` (a JSON object a line, at each look), None for nothing; or ``"auto"``,
            a bar where stderr is a terminal, and lines elsewhere.
        say_every: seconds between two lines.
        to: a path or a stream for lines and JSON; stderr without one.

    Raises:
        OptionValueError: an option does not take its value.
        TargetError: `loader` cannot be iterated.
    """
    given: object = loader
    if not isinstance(given, Iterable) and not hasattr(type(given), "__getitem__"):
        raise TargetError(
            f"watch takes what a loop goes through, such as a DataLoader, and {type(loader).__name__} cannot be "
            "iterated: write `for batch in watch(loader):`"
        )
    return Watched(loader, name, Options(every, alert, after, show, say_every, to))


class Watched(Generic[T_co]):
    """A loader whose loops are watched; in all else it is the loader.

    Args:
        loader: the loader.
        name: what it is called, or None.
        options: what is asked for.
    """

    def __init__(self, loader: Iterable[T_co], name: str | None, options: Options) -> None:
        self._loader = loader
        self._name = name
        self._voice = Voice(options)
        self._last: Run | None = None

    @property
    def seen(self) -> Seen | None:
        """What was seen of its last loop so far, and of those that it is in; None before its first."""
        return None if self._last is None else self._last.seen

    def __iter__(self) -> Iterator[T_co]:
        return _Iterator(self)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __repr__(self) -> str:
        return f"watch({self._loader!r})"


class _Iterator(Generic[T_co]):
    """One loop: an iterator that is timed, and in all else the loader's."""

    def __init__(self, watched: Watched[T_co]) -> None:
        loader = watched._loader
        self._run = run = watched._last = run_of(loader, watched._name)
        # Making it may start workers, which is waiting too.
        self._iterator = iter(loader)
        weakref.finalize(self, run.end)
        run.begin(watched._voice)

    def __iter__(self) -> Iterator[T_co]:
        return self

    @untraced
    def __next__(self) -> T_co:
        batch: T_co = self._run.take(self._iterator.__next__)
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "_iterator":
            raise AttributeError(name)
        return getattr(self._iterator, name)


# ------------------------------------------------------------------------------------ loaders that a region has watched


class _Of:
    """What a loader is, as its iterator tells: a loop must not keep the iterator alive."""

    def __init__(self, iterator: Any) -> None:
        self.dataset, self.num_workers = iterator._dataset, iterator._num_workers
        self.collate_fn, self.persistent_workers = iterator._collate_fn, iterator._persistent_workers
        self._sampler = iterator._index_sampler
        self.batch_size = getattr(self._sampler, "batch_size", None)

    def __len__(self) -> int:
        return len(self._sampler)


_runs: dict[int, Run] = {}
"""Of each iterator of torch's that is in a loop, by its identity, what is known of it: asked for at each batch, and so
no `WeakKeyDictionary`, which takes as much time for it as all the rest."""


def _dropped(identity: int, run: Run) -> None:
    """A loop was left, and its iterator is no more."""
    _runs.pop(identity, None)
    run.end()


@untraced
def taken(iterator: Any, fetch: Callable[[], Any], voice: Callable[[], Voice], in_force: Callable[[], bool]) -> Any:
    """The next batch of a data loader's iterator, which is watched as long as somebody wants that.

    Args:
        iterator: torch's.
        fetch: gives the batch.
        voice: who tells of it.
        in_force: whether it is to be watched.
    """
    if here.holder.within:  # as part of a loop that is watched already
        return fetch()
    run = _runs.get(id(iterator))
    if run is None:
        if get_worker_info() is not None:
            return fetch()
        run = run_of(_Of(iterator))
        run.finalizer = weakref.finalize(iterator, _dropped, id(iterator), run)
        _runs[id(iterator)] = run
    if run.session is None:
        run.begin(voice(), in_force)
    try:
        return run.take(fetch)
    except BaseException:
        # Workers that are kept give the next epoch by the same iterator.
        _runs.pop(id(iterator), None)
        if run.finalizer is not None:
            run.finalizer.detach()
        raise
