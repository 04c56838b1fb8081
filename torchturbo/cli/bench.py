"""`torchturbo bench train.py:make_step()`: what settings buy on a step, and how far they move its numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._step import chosen, measured, of_a_step, refuse_no_folder, said, written
from torchturbo.cli._typed import ProfileName, set_option
from torchturbo.errors import TurboError

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@of_a_step
@click.option(
    "--profiles", metavar="NAME,...", help="What to compare.  [default: fast,max; with --set these options alone]"
)
@set_option("An option that beats each profile's; again for another one.")
@click.option("--budget", default="20 s", show_default=True, help="How long the rounds may take: '90 s', '2 min'.")
@click.option("--one-at-a-time", is_flag=True, help="Measure too what each option of the last profile buys.")
@click.option(
    "--reference",
    type=ProfileName(),
    metavar="NAME",
    default="exact",
    show_default=True,
    help="What numbers are compared with: a profile, or float64.",
)
@click.option("--png", type=_FILE, help="Draw a picture into a file (.png, .svg, .pdf), by matplotlib.")
@click.option("--html", type=_FILE, help="Write a page into a file that needs nothing else.")
@as_json
def bench(
    function: str | None,
    model: str | None,
    size: str | None,
    profiles: str | None,
    options: tuple[str, ...],
    budget: str,
    one_at_a_time: bool,
    reference: str,
    png: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    r"""Say what settings buy on a step of training.

    The step as it is and under each profile run in turn, round after round, each time from the same state. A difference
    inside the noise is called none. FUNCTION is FILE.py:NAME or PACKAGE.MODULE:NAME: a function without arguments that
    takes a step of training. With brackets, FILE.py:NAME(), it is called once to make the model and the data, and
    returns that function. Instead of it --model takes a step of a small model that is built in.

    \b
    Example:
        torchturbo bench "train.py:make_step()" --profiles fast,max
        torchturbo bench --model gpt --size small --html gpt.html

    Exit codes: 0 measured, 2 wrong usage or a function that raises.
    """
    from torchturbo import benchmark

    refuse_no_folder({"--png": png, "--html": html})
    if png is not None:
        _refuse(png)
    found, about = measured(
        benchmark,
        function,
        model,
        size,
        profiles=_names(profiles),
        budget=budget,
        one_at_a_time=one_at_a_time,
        reference=reference,
        **chosen(options),
    )
    if about and not as_json:
        click.echo(about)
    tell(found, as_json)
    if html is not None:
        written(html, found.to_html())
    if png is not None:
        found.plot(png)
        said(png)
    sys.exit(0)


def _names(profiles: str | None) -> tuple[str, ...] | None:
    return None if profiles is None else tuple(name.strip() for name in profiles.split(",") if name.strip())


def _refuse(png: Path) -> None:
    from torchturbo._pictures.plot import refuse

    try:
        refuse(png)
    except TurboError as error:
        raise click.UsageError(str(error)) from error
