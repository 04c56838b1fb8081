"""One loop over one loader, from its first batch to its last: each batch timed and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter as clock
from typing import Any

from torchturbo._dynamo import untraced
from torchturbo._watch.batches import samples_in, tokens_in
from torchturbo._watch.data import Seen
from torchturbo._watch.session import Session
from torchturbo._watch.timeline import COMPUTING, WAITING, Timeline, here
from torchturbo._watch.voice import Voice


class Run:
    """One loop over one loader, from its first batch to its last.

    Args:
        name: what it is called.
        loader: what it goes through.
        of: how many batches it has, or None.
        workers: processes that fetch them.
        batch_size: samples of a whole batch, or None where the loader does not say.
    """

    __slots__ = (
        "batch_size",
        "began",
        "finalizer",
        "last",
        "loader",
        "name",
        "of",
        "samples",
        "session",
        "steps",
        "tokens",
        "waiting",
        "workers",
    )

    def __init__(self, name: str, loader: Any, of: int | None, workers: int, batch_size: int | None) -> None:
        self.name, self.loader, self.of, self.workers, self.batch_size = name, loader, of, workers, batch_size
        self.steps = self.samples = self.tokens = 0
        self.waiting = 0.0
        self.began = clock()
        self.session: Session | None = None
        self.last: Seen | None = None
        self.finalizer: Any = None

    @property
    def seen(self) -> Seen | None:
        """What was seen of it so far, and of those around it; None before it has begun."""
        return self.last if self.session is None else self.session.seen(clock())

    @untraced
    def begin(self, voice: Voice, in_force: Callable[[], bool] | None = None) -> None:
        """Begins to be watched; alone, or within the loop that is watched in this thread already.

        Args:
            voice: tells of it, if it is the outermost.
            in_force: whether somebody still wants it to be watched; None where that ends with the loop.
        """
        holder = here.holder
        session: Session | None = holder.session
        if session is not None:
            session.timeline.runs.append(self)
            self.session = session
            return
        timeline = Timeline(self.began)
        timeline.runs.append(self)
        # In this order, so that `end` ends what an interrupt has left half begun.
        self.session = holder.session = session = Session(holder, timeline, voice, in_force)
        holder.timeline = timeline
        session.start()

    @untraced
    def take(self, fetch: Callable[[], Any]) -> Any:
        """The next batch, timed; the loop is over where there is none.

        Args:
            fetch: gives it.
        """
        session = self.session
        if session is None:
            return fetch()
        try:
            return self._timed(session, fetch)
        except BaseException as why:
            self.end(alerting=isinstance(why, StopIteration))
            raise

    @untraced
    def _timed(self, session: Session, fetch: Callable[[], Any]) -> Any:
        timeline = session.timeline
        timeline.ident = threading.get_ident()
        outer = timeline.fetching
        began = clock()
        before = timeline.turns_to(WAITING, began)
        timeline.fetching = self
        holder = session.holder
        within = holder.within
        try:
            holder.within = within + 1
            batch = fetch()
        finally:
            holder.within = within
            ended = clock()
            # A step that has raised is over too.
            timeline.turns_to(WAITING if before is WAITING else COMPUTING, ended)
            timeline.fetching = outer
            self.waiting += ended - began
        if not self.steps:
            timeline.starting += ended - began
        self.steps += 1
        timeline.taken += 1
        self.samples += samples_in(batch, self.batch_size) or 0
        self.tokens += tokens_in(batch) or 0
        if self.steps == 1 or session.pending is not None:
            session.stepped()
        return batch

    @untraced
    def end(self, *, alerting: bool = False) -> None:
        """Is over, or left.

        Args:
            alerting: whether what is still to be alerted of can be, as the loop's own code is there to hear it.
        """
        session = self.session
        if session is None:
            return
        runs = session.timeline.runs
        try:
            if runs == [self]:
                session.end()
                self.last = session.last
                if alerting and session.pending is not None:
                    session.stepped()
            else:
                self.last = session.seen(clock())
        finally:
            self.session = None
            if self in runs:
                runs.remove(self)


def run_of(loader: Any, name: str | None = None) -> Run:
    """A loop over a loader, which has not begun.

    Args:
        loader: any.
        name: what it is called; without one, its dataset's class.
    """
    dataset = getattr(loader, "dataset", None)
    workers, batch_size = (getattr(loader, attribute, None) for attribute in ("num_workers", "batch_size"))
    name = name or (loader if dataset is None else dataset).__class__.__name__  # of what a cache is around
    return Run(
        name,
        loader,
        _length(loader),
        workers if isinstance(workers, int) else 0,
        batch_size if isinstance(batch_size, int) else None,
    )


def _length(loader: Any) -> int | None:
    """How many batches a loader has, or None where it does not know."""
    # A data loader of an iterable dataset keeps in mind that it was asked, and warns if there are more.
    kept = "_IterableDataset_len_called"
    before = getattr(loader, kept, None)
    try:
        return len(loader)
    except Exception:
        return None  # whatever it says to this
    finally:
        if getattr(loader, kept, None) is not before:
            setattr(loader, kept, before)
