"""A check from its beginning to its end: runs, their comparison, advice and price."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from torchturbo._replay.here import Here
from torchturbo._replay.record import Record
from torchturbo._replay.settings import Settings, around, named
from torchturbo._replay.target import as_script, refuse_what_runs_later, resolve
from torchturbo._reproducible.advice import HASH_SEED, advise
from torchturbo._reproducible.compare import first_difference
from torchturbo._reproducible.data import Difference, Price, Reproduction
from torchturbo._reproducible.fresh import Fresh
from torchturbo._reproducible.price import priced
from torchturbo._together import agreed, several, together, told
from torchturbo._told import progress
from torchturbo.errors import OptionValueError, RanksError, ReproducibilityError, TargetError

Tell = Callable[[str], None]
_SURE = 3
"""Runs that have to be identical before a setting is said to help, at the least."""


def check(
    function: Callable[..., Any] | str,
    runs: int,
    *,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    modules: Iterable[nn.Module],
    optimizers: Iterable[Optimizer],
    settings: Settings,
    fresh: bool,
    strict: bool,
    advice: bool,
    price_seconds: float,
) -> Reproduction:
    """What `torchturbo.check_reproducible` does, with its settings in one mapping."""
    if runs < 2:
        raise OptionValueError(
            f"runs={runs!r}: expected a number from 2 on, as one run has nothing to be compared with"
        )
    modules, optimizers = tuple(modules), tuple(optimizers)
    if fresh and (modules or optimizers):
        raise OptionValueError(
            "modules= and optimizers= are of this process: fresh=True finds those of its own by itself"
        )
    refuse_what_runs_later(function)
    around(settings)  # so that what is wrong is refused before anything runs
    asked = {"runs": runs, "settings": settings, "advise": advice, "price_seconds": price_seconds}
    # A script that reads its arguments is to find none: those of this process are not for it.
    with together("check_reproducible", **asked), as_script(function) if isinstance(function, str) else nullcontext():
        if fresh and several():
            raise RanksError(
                "fresh=True runs the function in processes that would be no ranks, and wait for ranks in vain: leave "
                "it out and start the whole run twice, or check in one process, started without torchrun"
            )
        runner: Here | Fresh
        if fresh:
            runner = Fresh(function, args, kwargs)
        else:
            called = resolve(function) if isinstance(function, str) else function
            refuse_what_runs_later(called)
            runner = Here(called, args, kwargs, modules, optimizers)
        with progress("check_reproducible") as tell:
            found = agreed(_compared(runner, runs, settings, advice=advice, price_seconds=price_seconds, tell=tell))
    if strict and not found.identical:
        raise ReproducibilityError(f"not reproducible\n{found}")
    return found


def _compared(
    runner: Here | Fresh, runs: int, settings: Settings, *, advice: bool, price_seconds: float, tell: Tell
) -> Reproduction:
    tell(f"run 1 of {runs}")
    first = runner.record(settings)
    difference: Difference | None = None
    for run in range(2, runs + 1):
        tell(f"run {run} of {runs}")
        other = runner.record(settings, f"raised in run {run}; run 1 had come to its end")
        difference = agreed(first_difference(first, other, run), _of_any)
        if difference is not None:
            break
    if difference is None and not agreed(first.tensors + first.values, max):
        raise TargetError(
            "nothing of the function could be compared, so nobody can say whether its runs are identical: it returned "
            f"{_returned(first)}, called no module, took no optimizer step, and left no tensor that was found. "
            "Return what is to be compared, as the loss, the model or its state_dict()"
        )
    advised: list[str] = []
    if difference is not None:
        if isinstance(runner, Here) and runner.search.iterators:
            advised.append(f"{runner.moves_on()}.")
        if advice:
            seed_is_set = HASH_SEED in os.environ
            times = max(runs, _SURE)
            advised += advise(runner, settings, difference, times=times, hash_seed_is_set=seed_is_set, tell=tell)
    tell("price")
    price: Price | str
    if isinstance(runner, Fresh):
        price = runner.priced(settings, price_seconds) if price_seconds > 0 else "price_seconds=0 asks for none"
    else:
        price = priced(runner, settings, price_seconds, tell)
    return Reproduction(
        identical=difference is None,
        difference=difference,
        advice=tuple(advised),
        price=price if isinstance(price, Price) else None,
        unpriced=price if isinstance(price, str) else None,
        runs=runs if difference is None else difference.run,
        fresh=runner.fresh,
        settings=named(settings),
        compared=first.tensors,
        values=first.values,
        steps=first.steps,
        modules=tuple(sorted(first.modules)),
        notes=(
            *told("runs are identical where they are on each, and what is counted is the first one's"),
            *(runner.notes() if isinstance(runner, Here) else runner.notes),
        ),
    )


def _of_any(found: Sequence[Difference | None]) -> Difference | None:
    """The difference of the first rank that has one, which says on which that is."""
    rank, its = next(((rank, its) for rank, its in enumerate(found) if its is not None), (0, None))
    return its if its is None or not rank else replace(its, note=f"on rank {rank}{its.note and f'; {its.note}'}")


def _returned(record: Record) -> str:
    return next(event.digest for event in record.events if event.kind == "returned")
