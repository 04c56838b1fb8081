"""`torchturbo profile train.py:make_step()`: the layers that cost most, and what share of a step each part of it is."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._step import chosen, measured, of_a_step, refuse_no_folder, written
from torchturbo.cli._typed import ProfileName, set_option
from torchturbo.cli._words import PROFILES

if TYPE_CHECKING:
    from torchturbo import LayerCosts

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@of_a_step
@click.option("--profile", type=ProfileName(), metavar="NAME", help="The profile that it runs under; else none.")
@set_option("An option that it runs under; again for another one.")
@click.option("--steps", type=click.IntRange(min=1), default=3, show_default=True, help="How many steps are measured.")
@click.option("--top", type=click.IntRange(min=1), default=15, show_default=True, help="How many layers are shown.")
@click.option("--trace", type=_FILE, help="Write a trace of one step for ui.perfetto.dev (.json or .json.gz).")
@click.option("--html", type=_FILE, help="Write a page into a file that needs nothing else.")
@as_json
def profile(
    function: str | None,
    model: str | None,
    size: str | None,
    profile: str | None,
    options: tuple[str, ...],
    steps: int,
    top: int,
    trace: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    r"""Name the layers of a model that cost most.

    Their time in forward and in backward, what they keep in memory, and what share of a step is input, forward,
    backward, optimizer, or nothing. FUNCTION is FILE.py:NAME or PACKAGE.MODULE:NAME: a function without arguments that
    takes a step of training. With brackets, FILE.py:NAME(), it is called once to make the model and the data, and
    returns that function. Instead of it --model takes a step of a small model that is built in.

    \b
    Example:
        torchturbo profile "train.py:make_step()" --trace step.json
        torchturbo profile --model convnet --size small --profile fast

    Exit codes: 0 measured, 2 wrong usage or a function that raises.
    """
    if function in PROFILES:
        raise click.UsageError(
            f"{function!r} is a profile: `torchturbo profiles {function}` tells of it, and --profile {function} has a "
            "step run under it, as in torchturbo profile train.py:step"
        )
    refuse_no_folder({"--trace": trace, "--html": html})
    found, about = measured(
        _profiled, function, model, size, profile=profile, steps=steps, trace=trace, **chosen(options)
    )
    from torchturbo._layers.text import sheet
    from torchturbo._sheet import Sheet

    if about and not as_json:
        click.echo(about)
    tell(found, as_json, shown=Sheet(partial(sheet, found, top=top)))
    if html is not None:
        written(html, found.to_html())
    sys.exit(0)


def _profiled(step: Any, **how: Any) -> LayerCosts:
    from torchturbo import profile_layers

    return profile_layers(step, **how)
