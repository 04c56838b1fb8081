"""`torchturbo profiles`: what each profile would do on this machine or on a pretended one, and what not and why."""

from __future__ import annotations

import os

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._typed import MachineName, ProfileName
from torchturbo.errors import TurboError


@click.command()
@click.argument("names", nargs=-1, type=ProfileName(), metavar="[NAME]...")
@click.option("--machine", type=MachineName(), help="A machine to pretend, as a100; else this one.")
@as_json
def profiles(names: tuple[str, ...], machine: str | None, as_json: bool) -> None:
    r"""Show what each profile would do here, and what not and why.

    NAME is a profile, built in or from the file here; without one all are shown. What a file and the environment ask
    for counts, as it does in every block.

    \b
    Example:
        torchturbo profiles fast max --machine a100

    Exit codes: 0 shown, 2 wrong usage.
    """
    from torchturbo import _sources, hardware
    from torchturbo.cli._planned import planned
    from torchturbo.profiles import PROFILES
    from torchturbo.testing import MACHINES

    try:
        sources = _sources.read(os.environ, _sources.folder())
        chosen = tuple(sources.named(name) for name in names or (*PROFILES, *sources.profiles))
    except TurboError as error:
        raise click.UsageError(str(error)) from None
    told = planned(chosen, MACHINES[machine] if machine else hardware.detect(), sources, machine)
    tell(told, as_json)
