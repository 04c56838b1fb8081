"""Why a machine is not busy: from what was measured to a sentence; pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from torchturbo._watch.lines import Line
from torchturbo._watch.timeline import Times
from torchturbo._words import some

_STEPS = 3
"""Steps that are in what is judged, at least: one can be anything."""
_PIECES = 20
"""Pieces of what is judged that are told apart."""
_SHARE = 0.3
"""The share of the time from which on something is the cause, where it is not the greatest."""

About = Literal["loader", "workers' start", "compiling", "optimizer", "host"]


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured in a stretch of time.

    Attributes:
        times: where it went, in seconds.
        steps: batches that were taken.
        starting: seconds of waiting for the first batch of an iteration.
        compiled: graphs that were compiled.
        utilization: how busy the GPU was, 0 to 1; without one, the share of the time that did not wait for data.
        of_gpu: whether it is the GPU's.
    """

    times: Times
    steps: int
    starting: float
    compiled: int
    utilization: float
    of_gpu: bool

    @property
    def waiting(self) -> float:
        """The share of waiting for data."""
        return self.times.waiting / (self.times.total or 1.0)

    @property
    def optimizer(self) -> float:
        """The share of the optimizer's steps."""
        return self.times.optimizer / (self.times.total or 1.0)


@dataclass(frozen=True, slots=True)
class Loading:
    """How the batches come that were waited for most.

    Attributes:
        kind: what gives them, in a word or two.
        workers: processes that fetch them; None where it is no data loader of torch's.
        cores: that this process may use.
        persistent: whether workers are kept from epoch to epoch.
        refused: why it gets no workers, or None.
        cached: what `torchturbo.cached` keeps of it already: ``"items"``, ``"batches"``, or nothing.
    """

    kind: str
    workers: int | None
    cores: int
    persistent: bool = False
    refused: str | None = None
    cached: Literal["items", "batches"] | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a machine is not busy.

    Attributes:
        about: what it is, in a word that is for programs.
        said: what it is, in words.
        advice: what to do.
        lines: where the time goes.
    """

    about: About
    said: str
    advice: str
    lines: tuple[Line, ...] = ()

    def __str__(self) -> str:
        lines = "".join(f"\n  {line}" for line in self.lines)
        return f"{self.said}; {self.advice}" + (f". The lines that spend it:{lines}" if lines else "")


class Judge:
    """Says once when utilisation stays below a threshold.

    Args:
        threshold: 0 to 1.
        after: seconds that it has to stay below.
    """

    def __init__(self, threshold: float, after: float) -> None:
        self.threshold, self.after = threshold, after
        self.told = False
        self._windows: deque[Window] = deque()

    def add(self, window: Window) -> Window | None:
        """Takes the next stretch of time; returns what is to be told of, or None.

        Args:
            window: what was measured in it.
        """
        if self.told:
            return None
        windows = self._windows
        if windows and windows[-1].times.total < self.after / _PIECES:  # of loops that are over in no time
            window = _together((windows.pop(), window))
        windows.append(window)
        while len(windows) > 1 and sum(each.times.total for each in windows) - windows[0].times.total >= self.after:
            windows.popleft()
        whole = _together(windows)
        # Clocks that add up to 0.999 of what was asked for have waited long enough.
        if whole.times.total < 0.99 * self.after or whole.steps < _STEPS or whole.utilization >= self.threshold:
            return None
        self.told = True
        return whole


def _together(windows: Collection[Window]) -> Window:
    times = Times(*(sum(each) for each in zip(*(window.times for window in windows), strict=True)))
    busy = sum(window.utilization * window.times.total for window in windows)
    return Window(
        times,
        sum(window.steps for window in windows),
        sum(window.starting for window in windows),
        sum(window.compiled for window in windows),
        busy / (times.total or 1.0),
        any(window.of_gpu for window in windows),
    )


def cause_of(window: Window, loading: Loading, waited: tuple[Line, ...], computed: tuple[Line, ...]) -> Cause:
    """Why utilisation was low.

    Args:
        window: what was measured.
        loading: how batches come.
        waited: lines in which this process waited for data; none where workers fetch them.
        computed: lines in which it did something else, the optimizer's steps too.
    """
    host = 1.0 - window.waiting - window.optimizer
    if not window.of_gpu or window.waiting >= max(_SHARE, min(host, 1.0 - window.utilization)):
        if loading.workers and not loading.persistent and window.starting > window.times.waiting / 2:
            return Cause(
                "workers' start",
                f"waiting on the loader {window.waiting:.0%} of the time, most of it for the first batch of an epoch: "
                f"its {loading.workers} workers are started anew each time",
                "try persistent_workers=True",
            )
        said = f"waiting on the loader {window.waiting:.0%} of the time: {_of(loading)}"
        return Cause("loader", said, _advice(window, loading), waited)
    if window.compiled:
        graphs, steps = some(window.compiled, "graph"), some(window.steps, "step")
        said = f"torch.compile has compiled {graphs} in {steps}: what it was given changes"
        return Cause("compiling", said, "see torch._logging.set_logs(recompiles=True)", computed)
    if window.optimizer >= _SHARE:
        said = f"the optimizer's step takes {window.optimizer:.0%} of the time, and leaves the GPU idle"
        return Cause("optimizer", said, "try turbo(fused_optimizer=True)", computed)
    said = f"host code in your loop: the GPU waits for it, and data come in {window.waiting:.0%} of the time"
    return Cause("host", said, "move it out of the loop; where it is the model's, try turbo(compile=True)", computed)


def share_below(share: float, threshold: float) -> str:
    """A share in words that say that it is below a threshold, however near.

    Args:
        share: 0 to 1.
        threshold: that it is below.
    """
    rounded = f"{share:.0%}"
    return rounded if rounded != f"{threshold:.0%}" else f"{math.floor(1000 * share) / 1000:.1%}"


def _of(loading: Loading) -> str:
    cores = f"on {some(loading.cores, 'core')}"
    if loading.workers is None:
        return f"{loading.kind} makes batches in the loop's own thread, {cores}"
    if not loading.workers:
        return f"no workers {cores}, batches are made in the loop's own thread"
    return f"{some(loading.workers, 'worker')} {cores}"


def _advice(window: Window, loading: Loading) -> str:
    cheaper = {
        None: "make fetching cheaper, or have torchturbo.cached() keep what it makes",
        "items": "its items are cached, and what makes batches of them is not (collate_fn, and what comes before it)",
        "batches": "its batches are cached: make them smaller, or have them built at first (cache_of(loader).fill())",
    }[loading.cached]
    if loading.workers is None:
        return "try a torch.utils.data.DataLoader with workers around the data"
    if loading.refused is not None:
        return f"workers would not get it right ({loading.refused}): {cheaper}"
    wanted, room = workers_for(window.times, loading.workers), max(1, loading.cores // 2)
    if loading.workers >= room:
        return f"there is no room for more, as the loop needs cores too: {cheaper}"
    if wanted <= room:
        return f"try num_workers={wanted}"
    return f"try num_workers={room}, which will not be all it needs ({wanted}): {cheaper}"


def workers_for(times: Times, workers: int) -> int:
    """How many workers fetch as fast as the loop takes, if all that it waits for is their work.

    Args:
        times: where the time went.
        workers: how many there were.
    """
    working = times.waiting if not workers else workers * times.total
    return max(1, math.ceil(working / max(times.computing + times.optimizer, 0.01 * times.total, 1e-9)))
