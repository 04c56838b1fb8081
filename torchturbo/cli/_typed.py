"""What is typed on a command line, and how Tab completes it: names of profiles, options and machines, and values.

It has to answer before torch could be imported, so the words are those of `torchturbo.cli._words` and of the file here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from torchturbo.cli import _words
from torchturbo.errors import TurboError, near

if TYPE_CHECKING:
    _Type = click.ParamType[str]
else:  # before click 8.4 it is not generic
    _Type = click.ParamType


def _items(incomplete: str, words: Iterable[str], helps: Mapping[str, str], after: str = "") -> list[CompletionItem]:
    lower = incomplete.lower()
    return [CompletionItem(f"{word}{after}", help=helps.get(word)) for word in words if word.lower().startswith(lower)]


class ProfileName(_Type):
    """The name of a profile, built in or made in a file; whoever uses it says that there is none."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The profiles that begin so."""
        theirs = {name: "" for name in _of_the_file()}
        return _items(incomplete, (*_words.PROFILES, *theirs), _words.PROFILES)


def _of_the_file() -> list[str]:
    """The names of the profiles that the file here makes; none where it cannot be read, which commands say in words."""
    from pathlib import Path

    from torchturbo._config import find

    try:
        made = find(Path.cwd()).table.get("profiles")
    except (TurboError, OSError):
        return []
    return list(made) if isinstance(made, Mapping) else []


class OptionName(_Type):
    """The name of an option."""

    name = "option"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, in its one spelling."""
        if value not in _words.OPTIONS:
            self.fail(f"there is no option {value!r}: {near(value, _words.OPTIONS)}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The options that begin so."""
        return _items(incomplete, _words.OPTIONS, _words.OPTIONS)


class OptionAndValue(_Type):
    """An option, an equals sign and a value; whoever uses it says what is wrong with either."""

    name = "option=value"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The options that begin so, or the values of the one that is named."""
        name, equals, value = incomplete.partition("=")
        if not equals:
            return _items(name, _words.OPTIONS, _words.OPTIONS, after="=")
        return [CompletionItem(f"{name}={its}") for its in _words.VALUES.get(name, ()) if its.startswith(value.lower())]


def _bare(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")


class MachineName(_Type):
    """The name of a machine that can be pretended, in capitals or not, with its blank or without."""

    name = "machine"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, in its one spelling."""
        known = {_bare(name): name for name in _words.MACHINES}
        if _bare(str(value)) in known:
            return known[_bare(str(value))]
        self.fail(f"there is no machine {value!r} to pretend: {near(value, _words.MACHINES)}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The machines that begin so."""
        return _items(incomplete, _words.MACHINES, {})


def set_option(help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command ``--set OPTION=VALUE``, any number of times, as its argument ``options``.

    Args:
        help: what it is for.
    """
    return click.option("--set", "options", type=OptionAndValue(), metavar="OPTION=VALUE", multiple=True, help=help)
