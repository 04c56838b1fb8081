"""The command line, `torchturbo` or `python -m torchturbo`. A file in this folder is a command."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import add_completion_class

from torchturbo import __version__
from torchturbo.cli._shells import Bash
from torchturbo.errors import near


class Launch(BaseException):
    """Ends a command with something to do once click is out of the way, which takes errors and signals for its own.

    Args:
        act: what to do.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act


class Folder(click.Group):
    """The commands of this folder, each imported when it is asked for."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command that is asked for, and then what it launches."""
        try:
            return super().main(*args, **kwargs)
        except Launch as launch:
            act = launch.act
        return act()  # not within the except, or every error of it would be said to have come during that one

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands by name, which are those of the files, with dashes."""
        found = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command that a file declares under its own name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        return _laid_out(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is asked for, or an error that names the near ones."""
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known:
            ctx.fail(f"there is no command {args[0]!r}: {near(args[0], known)}")
        return super().resolve_command(ctx, args)


def _laid_out(command: click.Command) -> click.Command:
    """The command with the lines of its help kept after a backslash and b: click knows only the character they mean."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    return command


@click.group(cls=Folder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="torchturbo")
def main() -> None:
    r"""Train and infer faster in PyTorch, and have everything back as it was.

    \b
    Example:
        torchturbo doctor
        torchturbo profiles --machine a100
        torchturbo run --profile fast train.py

    Exit codes: 0 done, 1 what the command's help says, 2 wrong usage; those of `run` are the script's. What a
    command does in full, and its own codes: torchturbo COMMAND --help.
    """


_laid_out(main)
add_completion_class(Bash)
