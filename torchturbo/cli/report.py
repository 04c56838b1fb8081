"""`torchturbo report`: how torch stands here, what this machine can do, and what to do about it."""

from __future__ import annotations

import click

from torchturbo.cli._answer import as_json, tell


@click.command()
@as_json
def report(as_json: bool) -> None:
    r"""Show every option, the machine, the versions and what to do.

    It tells of a fresh process: what a program of yours has in force, torchturbo.report() inside it tells, and
    `torchturbo run --report`.

    \b
    Example:
        torchturbo report --json | jq .options.num_threads.now

    Exit codes: 0 told, 2 wrong usage.
    """
    from torchturbo._report import gather

    tell(gather(), as_json)
