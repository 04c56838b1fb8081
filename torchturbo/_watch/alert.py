"""What is said once when a machine is not busy: with what was measured, why, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torchturbo._watch.cause import Loading, Window, cause_of, share_below
from torchturbo._watch.timeline import COMPUTING, OPTIMIZER, WAITING
from torchturbo.errors import WatchWarning
from torchturbo.hardware import _room, detect
from torchturbo.hardware._ranks import processes_here
from torchturbo.regions._workers import decided
from torchturbo.settings._callers import users_frame, warn_at

if TYPE_CHECKING:
    from torchturbo._watch.session import Session

_DEEP = 4
"""Parts of parts of a dataset that are looked into."""


def alert(window: Window, session: Session) -> None:
    """Warns, at the line of the loop.

    Args:
        window: what was measured.
        session: of the loop.
    """
    runs = session.timeline.runs
    run = max(runs, key=lambda each: each.waiting)
    lines, judge = session.voice.lines, session.voice.judge
    assert judge is not None
    cause = cause_of(
        window,
        loading_of(run.loader),
        lines.most(WAITING),
        lines.most(COMPUTING, OPTIMIZER),
    )
    of = "the GPU is busy" if window.of_gpu else "this machine computes"
    below = f"below {judge.threshold:.0%} over {window.times.total:.1f} s"
    busy = share_below(window.utilization, judge.threshold)
    warn_at(users_frame(), f"{of} {busy} of the time, {below}: {cause}", WatchWarning)


def loading_of(loader: Any) -> Loading:
    """How a loader's batches come.

    Args:
        loader: any.
    """
    cores = max(1, _room.cores(detect().cpu.cores) // processes_here())
    workers = getattr(loader, "num_workers", None)
    kind = f"a {type(loader).__name__}"
    if not isinstance(workers, int) or not hasattr(loader, "dataset"):
        return Loading(kind, None, cores)
    refused = None
    if not workers:
        named = {"dataset": loader.dataset, "collate_fn": getattr(loader, "collate_fn", None)}
        number, told = decided(1, named)
        refused = None if number else told.removeprefix("got no workers: ")
    return Loading(kind, workers, cores, bool(getattr(loader, "persistent_workers", False)), refused, _cached(loader))


def _cached(loader: Any) -> Literal["items", "batches"] | None:
    """What is cached of a loader; of one in a region its iterator is known alone, and a dataset that has batches."""
    dataset = loader.dataset
    if hasattr(loader, "_self_kept") or hasattr(dataset, "_self_order"):
        return "batches"
    for _ in range(_DEEP):
        if hasattr(dataset, "_self_kept"):
            return "items"
        dataset = getattr(dataset, "dataset", None)  # of a part of it
    return None
