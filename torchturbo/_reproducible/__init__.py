"""Whether a function does the same to the bit each time, what would help where it does not, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchturbo._reproducible.data import Difference, Price, Reproduction

if TYPE_CHECKING:
    from typing import Unpack

    from torch import nn
    from torch.optim import Optimizer

    from torchturbo._options import Options
    from torchturbo.profiles import Profile

__all__ = ["Difference", "Price", "Reproduction", "check_reproducible"]


def check_reproducible(
    fn: Callable[..., Any] | str,
    runs: int = 2,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    modules: Iterable[nn.Module] = (),
    optimizers: Iterable[Optimizer] = (),
    profile: str | Profile | None = None,
    fresh: bool = False,
    strict: bool = False,
    advise: bool = True,
    price_seconds: float = 20.0,
    **options: Unpack[Options],
) -> Reproduction:
    """Runs a function several times from the same state, and says whether it did the same each time, to the bit.

    Compared are, in the order of the program: the weights of each model when it is first called, what goes into it,
    what each module gives, gradients and parameters at each optimizer step, what the function returns (modules,
    optimizers and other objects by what they hold), and what it leaves in tensors, arrays and optimizers.
    -0.0 is not 0.0; any NaN is any other NaN.

    Afterwards everything is as it was: parameters, buffers, gradients, optimizers and their state, random streams of
    Python, NumPy and torch, and variables of the function's own code. So too where it raises.

    Args:
        fn: the function, or its name as ``"train.py:step"``, ``"package.module:step"`` or ``"train.py:make_step()"``;
            with the brackets it is called once, and what it returns is checked.
        runs: how often it runs, from 2 on.
        args: what it is called with.
        kwargs: what it is called with by name.
        modules: models that it uses, where they cannot be found through its variables or when they are called.
        optimizers: likewise.
        profile: the profile that it runs under; None for none.
        fresh: give each run a process of its own, with another ``PYTHONHASHSEED`` unless you have set it. The
            function is imported there, and has to make its model and data itself.
        strict: raise where the runs differ.
        advise: where they differ, run again under other settings to find what helps.
        price_seconds: how long its time may be measured, as it is and under the profile ``"reproducible"``; 0 for
            not at all.
        **options: options that beat the profile's.

    Raises:
        ReproducibilityError: `strict`, and the runs differ; a fresh process failed; or the function
            ended by `sys.exit`.
        TargetError: there is no such function, another process could not import it, it returned a generator or a
            coroutine that has not run, or there was nothing that could be compared.
        RanksError: it is one of several processes that train together, and another one has not come to this, is asked
            for something else, or has raised; or `fresh`, there.
        OptionValueError: `runs` is less than 2, or an option does not take its value.
        OptionNameError: there is no such option.
        ProfileNameError: there is no such profile.
        RestoreError: torch refused something on the way back.

    >>> import torch
    >>> from torchturbo import check_reproducible
    >>> model = torch.nn.Linear(4, 2)
    >>> def step():
    ...     model(torch.randn(3, 4)).sum().backward()
    >>> check_reproducible(step, price_seconds=0).identical
    True
    >>> model.weight.grad is None
    True
    """
    # What it needs is loaded when it is needed.
    from torchturbo._reproducible.check import check

    settings: dict[str, Any] = {**({} if profile is None else {"profile": profile}), **options}
    return check(
        fn,
        runs,
        args=args,
        kwargs=kwargs or {},
        modules=modules,
        optimizers=optimizers,
        settings=settings,
        fresh=fresh,
        strict=strict,
        advice=advise,
        price_seconds=price_seconds,
    )
