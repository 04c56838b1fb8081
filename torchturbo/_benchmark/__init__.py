"""What settings buy on a step of yours: time, memory and drift, measured in turn, with nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torchturbo._benchmark.data import Between, Comparison, Drift, Switch, Timed
from torchturbo._words import seconds_of

if TYPE_CHECKING:
    from typing import Unpack

    from torch import nn
    from torch.optim import Optimizer

    from torchturbo._options import Options
    from torchturbo.profiles import Profile

__all__ = ["Between", "Comparison", "Drift", "Switch", "Timed", "benchmark"]


def benchmark(
    step: Callable[..., Any] | str,
    profiles: str | Profile | Sequence[str | Profile] | None = None,
    *,
    budget: float | str = "20 s",
    reference: str = "exact",
    one_at_a_time: bool = False,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    modules: Iterable[nn.Module] = (),
    optimizers: Iterable[Optimizer] = (),
    **options: Unpack[Options],
) -> Comparison:
    """Runs a step under several settings in turn, and says what each buys and what it changes.

    The baseline is what is in force where this is called; PyTorch's defaults are measured beside it, unless they are
    the same. Each sample begins from the same state, and rounds go through all settings in an order by chance. A
    difference inside the noise is called none.

    Afterwards everything is as it was: parameters, buffers, gradients, optimizers and their state, gradient scaling,
    random streams of Python, NumPy and torch, the positions of data loaders and of Python's iterators, and variables of
    the step's own code. So too where it raises.

    Args:
        step: a function that does what is to be measured, as one step of training; or its name, as
            ``"train.py:step"``, ``"package.module:step"`` or ``"train.py:make_step()"``, which is called once and
            returns the function.
        profiles: what to compare with the baseline: names, or `Profile` objects. By default ``"fast"`` and ``"max"``,
            or where options are given these alone.
        budget: how long the rounds may take, all together, in seconds or as ``"90 s"`` or ``"2 min"``. First steps,
            compiling, memory and drift come on top.
        reference: what the numbers are compared with: a profile, or ``"float64"``, the step with every floating
            operation in float64 and the random numbers of float32.
        one_at_a_time: measure too what each option of the last profile buys: alone, and left out.
        args: what the step is called with.
        kwargs: what it is called with by name.
        modules: models that it uses, where they cannot be found through its variables or when they are called.
        optimizers: likewise.
        **options: options that beat each profile's.

    Raises:
        OptionValueError: `budget` is no time, or an option does not take its value.
        OptionNameError: there is no such option.
        ProfileNameError: there is no such profile.
        TargetError: there is no such function, or it returned a generator or a coroutine that has not run.
        RanksError: it is one of several processes that train together, and another one has not come to this, is asked
            for something else, or has raised.
        RestoreError: torch refused something on the way back.

    >>> import torch
    >>> from torchturbo import benchmark
    >>> model = torch.nn.Linear(8, 8)
    >>> comparison = benchmark(lambda: model(torch.ones(4, 8)).sum().backward(), "exact", budget=0.2)
    >>> comparison["exact"].drift.same, model.weight.grad
    (True, None)
    """
    seconds = seconds_of(budget, "budget")
    # What it needs is loaded when it is needed.
    from torchturbo._benchmark.compare import compare
    from torchturbo._replay.here import Here
    from torchturbo._replay.target import called
    from torchturbo._together import agreed, together
    from torchturbo._told import progress

    if profiles is None:
        profiles = () if options else ("fast", "max")
    elif isinstance(profiles, str | Mapping):
        profiles = (profiles,)
    asked = {"profiles": profiles, "budget": seconds, "reference": reference, "one_at_a_time": one_at_a_time}
    with together("benchmark", **asked, options=options), called(step) as function, progress("benchmark") as tell:
        found = compare(
            partial(Here, function, args, kwargs, modules, optimizers),
            tuple(profiles),
            options,
            seconds=seconds,
            reference=reference,
            one_at_a_time=one_at_a_time,
            tell=tell,
        )
        return agreed(found)
