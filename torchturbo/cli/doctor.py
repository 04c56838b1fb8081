"""`torchturbo doctor`: what is wrong on this machine and in this environment, each with its fix."""

from __future__ import annotations

import sys

import click

from torchturbo.cli._answer import as_json, tell


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    r"""Find what keeps torch slow here, and say how to mend it.

    It looks at the driver, the GPUs, compilers, threads, shared memory, environment variables and files, of a fresh
    process in this folder. It changes nothing. A problem is what does not work, or not as fast as it does elsewhere;
    advice is what more is to be had.

    \b
    Example:
        torchturbo doctor && torchturbo run train.py

    Exit codes: 0 no problem, 1 problems, 2 wrong usage.
    """
    from torchturbo._doctor import examine

    found = examine()
    tell(found, as_json)
    sys.exit(1 if found.problems else 0)
