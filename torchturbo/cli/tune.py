"""`torchturbo tune train.py:make_step()`: the fastest settings for a step, written to the file that configures us."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._step import answered

_NOTHING = 1


@click.command()
@click.argument("function", type=click.Path())
@click.option(
    "--tolerance",
    type=float,
    default=0.05,
    show_default=True,
    help="How far loss, gradients and outputs may be from float32's, relative to them.",
)
@click.option("--budget", default="2 min", show_default=True, help="How long it may take: '90 s', '5 min', '1 h'.")
@click.option("--name", default="tuned", show_default=True, help="What the profile is called.")
@click.option("--write/--no-write", default=True, help="Whether to write it to a file.  [default: write]")
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="The file; else the one in force here."
)
@as_json
def tune(
    function: str, tolerance: float, budget: str, name: str, write: bool, path: Path | None, as_json: bool
) -> None:
    r"""Search for the fastest settings for a step of training.

    Its numbers stay within a tolerance of those in float32. FUNCTION is FILE.py:NAME or PACKAGE.MODULE:NAME: a function
    without arguments that takes a step of training. With brackets, FILE.py:NAME(), it is called once to make the model
    and the data, and returns that function.

    \b
    Example:
        torchturbo tune "train.py:make_step()" --budget "5 min"
        torchturbo run --profile tuned train.py

    Ctrl-C ends the search, and the best so far is kept.

    Exit codes: 0 something faster was found, 1 nothing was, 2 wrong usage or a function that raises.
    """
    if path is not None and not write:
        raise click.UsageError("--file names where to write, and --no-write says not to: leave one of them out")
    from torchturbo import tune as search

    found = answered(lambda: search(function, tolerance=tolerance, budget=budget, name=name, write=path or write))
    tell(found.tuning, as_json)
    if found.tuning.options and write and not as_json:
        click.echo(f"\nIn force with: torchturbo run --profile {name}, or turbo({name!r})")
    sys.exit(0 if found.tuning.options else _NOTHING)
