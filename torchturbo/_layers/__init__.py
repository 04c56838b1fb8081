"""Which layers of a model cost most, and what share of a step is input, compute, optimizer or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchturbo._layers.data import Layer, LayerCosts, Operator, Share
from torchturbo.errors import OptionValueError

if TYPE_CHECKING:
    from typing import Unpack

    from torch import nn
    from torch.optim import Optimizer

    from torchturbo._options import Options
    from torchturbo.profiles import Profile

__all__ = ["Layer", "LayerCosts", "Operator", "Share", "profile_layers"]


def profile_layers(
    step: Callable[..., Any] | str,
    profile: str | Profile | None = None,
    *,
    steps: int = 3,
    trace: str | Path | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    modules: Iterable[nn.Module] = (),
    optimizers: Iterable[Optimizer] = (),
    **options: Unpack[Options],
) -> LayerCosts:
    """Says which modules cost most in forward, backward and memory, and what share of a step each part of it is.

    Built on torch's profiler: the time of a step is divided among its operators, and each is of the innermost module
    whose call it lies in. What runs in backward is of the module whose forward has recorded it, by the number that
    autograd gives to both. Every measured step begins from the same state, after one that warms up.

    Afterwards everything is as it was, as after `benchmark`; so too where it raises.

    Args:
        step: a function that takes one step of training; or its name, as `benchmark` takes it.
        profile: what it runs under: a name, or a `Profile`; by default what is in force where this is called.
        steps: how many are measured; times are medians over them.
        trace: a file to write a trace of the last of them to, for https://ui.perfetto.dev, as ``"trace.json"`` or
            ``"trace.json.gz"``; by default none is written.
        args: what the step is called with.
        kwargs: what it is called with by name.
        modules: models that it uses, where they cannot be found through its variables or when they are called.
        optimizers: likewise.
        **options: options that beat the profile's.

    Raises:
        OptionValueError: `steps` is no number from 1 on, or there is no folder for `trace`, or an option does not take
            its value.
        OptionNameError: there is no such option.
        ProfileNameError: there is no such profile.
        TargetError: there is no such function, or it has not run; or a profiler of torch's runs already.
        RanksError: it is one of several processes that train together, and another one has not come to this, is asked
            for something else, or has raised.
        RestoreError: torch refused something on the way back.

    >>> import torch
    >>> from torchturbo import profile_layers
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    >>> costs = profile_layers(lambda: model(torch.ones(4, 8)).sum().backward(), steps=1)
    >>> sorted(layer.kind for layer in costs.layers), model[0].weight.grad
    (['Linear', 'ReLU', 'Sequential'], None)
    """
    if steps < 1:
        raise OptionValueError(f"steps={steps!r}: expected how many are to be measured, as steps=3")
    path = None if trace is None else Path(trace).absolute()  # the step may go elsewhere
    if path is not None and not path.parent.is_dir():
        raise OptionValueError(f"trace={str(trace)!r}: there is no folder {Path(trace or '').parent} to write it into")
    # What it needs is loaded when it is needed.
    from torchturbo._layers.measure import measure
    from torchturbo._replay.here import Here
    from torchturbo._replay.target import called, name_of
    from torchturbo._together import agreed, leads, together
    from torchturbo._told import progress

    settings: dict[str, Any] = ({} if profile is None else {"profile": profile}) | dict(options)
    with (
        together("profile_layers", settings=settings, steps=steps),
        called(step) as function,
        progress("profile") as tell,
    ):
        found = measure(
            partial(Here, function, args, kwargs, modules, optimizers),
            settings,
            name=name_of(step),
            steps=steps,
            trace=path if leads() else None,
            tell=tell,
        )
        return agreed(found)
