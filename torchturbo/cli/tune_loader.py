"""`torchturbo tune-loader train.py:make_loader`: how many workers a data loader should have, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._step import answered

if TYPE_CHECKING:
    from torchturbo import LoaderTuning


@click.command()
@click.argument("function", type=click.Path())
@click.option("--budget", default="1 min", show_default=True, help="How long it may take: '90 s', '5 min', '1 h'.")
@click.option(
    "--step-seconds", type=float, help="What a step takes for a batch: workers are enough where waiting ends."
)
@click.option("--batches", type=click.IntRange(min=1), help="Batches of an epoch; else what the loader says.")
@as_json
def tune_loader(function: str, budget: str, step_seconds: float | None, batches: int | None, as_json: bool) -> None:
    r"""Measure how many workers a data loader should have.

    And how far ahead they should be, and whether they should stay. FUNCTION is FILE.py:NAME or PACKAGE.MODULE:NAME: a
    function without arguments that returns a torch.utils.data.DataLoader, whose settings are what others are compared
    with. The file is imported, so what it does as a script belongs under if __name__ == "__main__":.

    \b
    Example:
        torchturbo tune-loader train.py:make_loader --budget "2 min"

    Ctrl-C ends the search, and the best so far is told.

    Exit codes: 0 measured, 2 wrong usage or a function that raises.
    """

    def found() -> LoaderTuning:
        from torchturbo import tune_loader as search
        from torchturbo._replay.target import called

        with called(function) as make:
            return search(make(), budget, step_seconds=step_seconds, batches=batches)

    tell(answered(found), as_json)
