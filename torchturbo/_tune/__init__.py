"""The fastest settings for a step of yours, found by measuring, whose numbers stay within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchturbo._tune.data import Tried, Tuned, Tuning
from torchturbo._words import seconds_of
from torchturbo.errors import OptionValueError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from torchturbo.profiles import Profile

__all__ = ["Tried", "Tuned", "Tuning", "tune"]


def tune(
    step: Callable[..., Any] | str,
    tolerance: float = 0.05,
    budget: float | str = "2 min",
    *,
    name: str = "tuned",
    write: bool | str | Path = True,
    also: Iterable[Profile | Mapping[str, Any]] = (),
    reference: str = "exact",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    modules: Iterable[nn.Module] = (),
    optimizers: Iterable[Optimizer] = (),
) -> Tuned:
    """Searches for the fastest settings whose numbers stay within a tolerance of the reference's.

    It goes from what is in force here, and tries one change after another on top of the best so far: precision,
    `torch.compile`, attention kernels, fused optimizers, threads. Each is first held against the reference, and one
    that drifts further than the tolerance is never timed. Clear losers are given up after a few samples; one that
    raises, or runs out of memory, is left out. What is found is measured once more against the start, in turn.

    Everything is as it was afterwards, as after `benchmark`. Ctrl-C ends the search, and the best so far is kept. Of
    several ranks, each of which calls it, all get the same, and the first one writes it.

    Args:
        step: a function that does what is to be fast, as one step of training; or its name, as `benchmark` takes it.
        tolerance: how far loss, gradients and outputs of the step may be from the reference's, relative to them: 0.05
            is five percent of their length. What optimizers make of parameters may differ by ten times as much, and
            never by 0.9 or more: Adam turns the rounding of tiny gradients into whole steps.
        budget: how long it may take, in seconds or as ``"90 s"``, ``"2 min"`` or ``"1 h"``. What takes longer than that
            by itself, as compiling may, is not interrupted.
        name: of the profile that is made.
        write: whether to write it to the file that configures torchturbo here, or to torchturbo.toml where there is
            none; or a path to write it to. Where nothing faster is found, nothing is written.
        also: more to try: options, or profiles.
        reference: the profile whose numbers count as right.
        args: what the step is called with.
        kwargs: what it is called with by name.
        modules: models that it uses, where they cannot be found through its variables or when they are called.
        optimizers: likewise.

    Returns:
        the profile, which a name in `turbo` finds once it is written. ``profile.tuning`` tells how it was found.

    Raises:
        OptionValueError: `tolerance` or `budget` cannot be, or an option of `also` does not take its value.
        OptionNameError: there is no such option.
        ProfileNameError: there is no such profile, or `name` is a built-in one.
        ConfigError: the file cannot be written to, or has a profile of that name that was made by hand.
        TargetError: there is no such function, or nothing of it could be compared.
        RanksError: it is one of several processes that train together, and another one has not come to this, is asked
            for something else, or has raised.
        RestoreError: torch refused something on the way back.
    """
    if not 0 <= tolerance < 1:
        raise OptionValueError(f"tolerance={tolerance!r}: expected a number from 0 on and below 1, as 0.05")
    seconds = seconds_of(budget, "budget")
    # What it needs is loaded when it is needed.
    from torchturbo._replay.here import Here
    from torchturbo._replay.target import called, name_of
    from torchturbo._together import agreed, leads, on_all, together
    from torchturbo._told import progress
    from torchturbo._tune.save import Place
    from torchturbo._tune.search import search

    also = tuple(also)
    with together("tune", tolerance=tolerance, budget=seconds, name=name, also=also, reference=reference):
        # So that what cannot be written is refused before anything runs. Of several ranks the first one writes.
        place = on_all(lambda: Place.of(write, name) if leads() else None)
        with called(step) as function, progress("tune") as tell:
            found = search(
                partial(Here, function, args, kwargs, modules, optimizers),
                tolerance,
                seconds,
                also,
                reference=reference,
                step=name_of(step),
                tell=tell,
            )
        tuned = Tuned.of(name, agreed(found))
        on_all(lambda: place.write(tuned) if place is not None and tuned.tuning.options else None)
    return tuned
