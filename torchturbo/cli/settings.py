"""`torchturbo settings`: every option there is, its values, who sees it, and how it stands here."""

from __future__ import annotations

import click

from torchturbo.cli._answer import as_json, tell
from torchturbo.cli._typed import OptionName


@click.command()
@click.argument("names", nargs=-1, type=OptionName(), metavar="[NAME]...")
@click.option("--markdown", is_flag=True, help="Print the document of all options, which is docs/settings.md.")
@as_json
def settings(names: tuple[str, ...], markdown: bool, as_json: bool) -> None:
    r"""Show every option: its values, who sees it, how it stands.

    NAME is an option, of which all is told; without one there is a table of all. How it stands is told of a fresh
    process.

    \b
    Example:
        torchturbo settings autocast deterministic

    Exit codes: 0 shown, 2 wrong usage.
    """
    if markdown:
        if names or as_json:
            raise click.UsageError("--markdown is the whole document: it takes neither names nor --json")
        from torchturbo._catalogue import OPTIONS
        from torchturbo.cli._document import settings_document
        from torchturbo.profiles import PROFILES

        click.echo(settings_document(OPTIONS, PROFILES), nl=False)
        return
    from torchturbo._report import gather
    from torchturbo.cli._catalogued import Catalogued

    tell(Catalogued(gather(), names), as_json)
