"""How a command tells what it has found: to people, or as JSON to programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""Gives a command the option ``--json``, as its argument ``as_json``."""


def tell(found: Any, as_json: bool, *, shown: RenderableType | None = None) -> None:
    """Prints what was found.

    Args:
        found: what it is: rich shows it, and it has a `to_json`.
        as_json: whether as JSON.
        shown: what rich shows in its place.
    """
    if as_json:
        click.echo(found.to_json())
        return
    from torchturbo._told import show

    show(found if shown is None else shown)
