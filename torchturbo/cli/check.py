"""`torchturbo check train.py:step`: whether a function does the same to the bit each time, and what that costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._step import WRONG, answered
from torchturbo.cli._typed import ProfileName
from torchturbo.errors import ReproducibilityError

if TYPE_CHECKING:
    from torchturbo import Reproduction


@click.command()
@click.argument("function", type=click.Path())
@click.option("--runs", type=click.IntRange(min=2), default=2, show_default=True, help="How often it runs.")
@click.option(
    "--fresh", is_flag=True, help="Give each run a process of its own, as a script that is started again has."
)
@click.option("--profile", type=ProfileName(), metavar="NAME", help="The profile that it runs under; else none.")
@click.option("--seed", type=int, help="The seed that it runs under; else none.")
@click.option(
    "--advise/--no-advise", default=True, help="Where runs differ, try which setting helps.  [default: advise]"
)
@click.option(
    "--price-seconds",
    type=float,
    default=20.0,
    show_default=True,
    help="How long its time may be measured; 0: not at all.",
)
@as_json
def check(
    function: str,
    runs: int,
    fresh: bool,
    profile: str | None,
    seed: int | None,
    advise: bool,
    price_seconds: float,
    as_json: bool,
) -> None:
    r"""Say whether a function gives the same bits each time.

    It runs several times from the same state. FUNCTION is FILE.py:NAME or PACKAGE.MODULE:NAME: a function without
    arguments that does what is to be checked, as some steps of training. With brackets, FILE.py:NAME(), it is called
    once to make the model and the data, and returns the function that is checked. The file is imported, so what it does
    as a script belongs under if __name__ == "__main__":.

    \b
    # train.py
    def make_step():
        model, batch = Net(), load()
        optimizer = torch.optim.AdamW(model.parameters())
        def step():
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
        return step

    \b
    Example:
        torchturbo check "train.py:make_step()" --fresh --profile reproducible

    Exit codes: 0 identical, 1 different, 2 wrong usage or a function that raises.
    """
    found = answered(
        lambda: _checked(
            function,
            runs=runs,
            fresh=fresh,
            profile=profile,
            advise=advise,
            price_seconds=price_seconds,
            **({} if seed is None else {"seed": seed}),
        )
    )
    tell(found, as_json)
    sys.exit(0 if found.identical else 1)


def _checked(function: str, **options: Any) -> Reproduction:
    from torchturbo import check_reproducible

    try:
        return check_reproducible(function, **options)
    except ReproducibilityError as error:
        # The line is right: it is the function that cannot be checked.
        click.echo(f"Error: {error}", err=True)
        sys.exit(WRONG)
