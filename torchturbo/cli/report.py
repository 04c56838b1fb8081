"""`torchturbo report`: how torch stands here, what this machine can do, and what to do about it."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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

    told = gather()
    if as_json:
        click.echo(told.to_json())
        return
    from torchturbo._told import show

    show(told)
