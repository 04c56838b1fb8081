"""`torchturbo completion`: the script that has a shell complete commands, options and their values with Tab."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print what SHELL has to read for Tab to complete.

    Tab then completes commands, options, the names of profiles (of the file here too), options and their values, and
    machines.

    \b
    Example, for good:
        torchturbo completion bash >> ~/.bashrc
        torchturbo completion zsh >> ~/.zshrc
        torchturbo completion fish > ~/.config/fish/completions/torchturbo.fish
    For this shell alone:
        eval "$(torchturbo completion bash)"

    Exit codes: 0 printed, 2 wrong usage.
    """
    from torchturbo.cli import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "torchturbo", "_TORCHTURBO_COMPLETE").source())
