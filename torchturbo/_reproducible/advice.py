"""What would help: found by running again under other settings, the smallest change first, and by what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from torchturbo._replay.record import Record
from torchturbo._replay.settings import Settings, told
from torchturbo._reproducible.compare import first_difference
from torchturbo._reproducible.data import Difference
from torchturbo._together import agreed

HASH_SEED = "PYTHONHASHSEED"


class Runs(Protocol):
    """Who can run the function again.

    Attributes:
        fresh: whether each run has a process of its own.
    """

    fresh: bool

    def record(self, settings: Settings, note: str = "") -> Record:
        """Runs it once."""
        ...


def candidates(settings: Settings, fresh: bool, hash_seed_is_set: bool) -> Iterator[Settings]:
    """What to try, the smallest change first: settings beside those in force. One thread alone is slow, and comes last.

    Args:
        settings: in force.
        fresh: whether each run has a process of its own, in which seeds matter.
        hash_seed_is_set: whether the user has set PYTHONHASHSEED.
    """
    hash_seed: dict[str, object] = {} if hash_seed_is_set else {HASH_SEED: "0"}
    seed: dict[str, object] = {} if "seed" in settings else {"seed": 0}
    cudnn: dict[str, object] = {"cudnn_benchmark": False, "cudnn_deterministic": True}
    tried: list[dict[str, object]] = [
        {"deterministic": True},
        *([cudnn] if torch.cuda.is_available() else []),
        {"profile": "reproducible"},
        {"num_threads": 1},
        {"profile": "reproducible", "num_threads": 1},
    ]
    if fresh:
        tried = [hash_seed, seed, {**seed, **hash_seed}, *tried, {"profile": "reproducible", **seed, **hash_seed}]
        tried.append({**tried[-1], "num_threads": 1})
    seen: list[dict[str, object]] = []
    for each in tried:
        new = {name: value for name, value in each.items() if settings.get(name) != value}
        if new and new not in seen:
            seen.append(new)
            yield new


def advise(
    runs: Runs,
    settings: Settings,
    found: Difference,
    *,
    times: int,
    hash_seed_is_set: bool,
    tell: Callable[[str], None],
) -> Iterator[str]:
    """What to do about a difference, as sentences.

    Args:
        runs: who runs the function again.
        settings: what it ran under.
        found: the first difference.
        times: runs that have to be identical.
        hash_seed_is_set: whether the user has set PYTHONHASHSEED.
        tell: of what is going on.
    """
    refused: dict[str, str] = {}
    for change in candidates(settings, runs.fresh, hash_seed_is_set):
        tell(f"trying {told(change)}")
        helps = _identical(runs, {**settings, **change}, times)
        if isinstance(helps, Exception):
            refused.setdefault((str(helps).splitlines() or [type(helps).__name__])[0], told(change))
        elif helps:
            yield (
                f"It is identical in {times} runs under {told(change)}; of what was tried, this is the smallest change."
            )
            if HASH_SEED in change:
                yield (
                    "Something goes over a set of texts, or uses their hash, and both differ in each process: sort it, "
                    f"as in `for name in sorted(names)`, or set {HASH_SEED} before Python starts."
                )
            break
    else:
        yield "No setting that was tried makes it identical."
        yield from _by_kind(found, runs.fresh)
    for said, its in refused.items():
        yield f"Under {its} it raised: {said}"


def _identical(runs: Runs, settings: Settings, times: int) -> bool | Exception:
    """Whether all runs are identical, or what one raised."""
    first: Record | None = None
    for run in range(1, times + 1):
        try:
            record = runs.record(settings)
        except Exception as error:
            return error
        first = first or record
        if agreed(first_difference(first, record, run) is not None, any):
            return False
    return True


_UNSEEDED = (
    "numpy.random.default_rng() or random.Random() made without a seed (in a data loader's worker too), os.urandom, "
    "a clock, or a file that has changed"
)


def _by_kind(found: Difference, fresh: bool) -> Iterator[str]:
    its = " and ".join(found.streams)
    if its and fresh:
        yield (
            f"{its} began elsewhere in each process, and was drawn from: give it a seed in the beginning, as "
            "torch.manual_seed(0), random.seed(0) and numpy.random.seed(0) do."
        )
    elif its:
        yield f"{its} was drawn from more often in one run than in the other: look for what decides that."
    elif found.kind == "input":
        yield (
            "What goes into the first module that differs was made outside of all modules: look at how it is loaded. "
            f"Where no seed helps, it comes from what no seed reaches: {_UNSEEDED}. "
            "A generator that is made as numpy.random.default_rng(random.getrandbits(128)) is one that seeds reach."
        )
    elif found.kind == "start":
        yield (
            f"The weights differ before anything was computed: they were drawn from what no seed reaches: {_UNSEEDED}."
        )
    elif found.kind == "order":
        yield (
            "The runs did not do the same things: look for what decides by time, by a counter, or by the order of a "
            "set."
        )
    else:
        yield (
            "What goes in is the same and what comes out is not: the code between draws from what no seed reaches "
            f"({_UNSEEDED}), keeps a state of its own that could not be put back, or sums up in an order that depends "
            "on its threads."
        )
