"""docs/cli.md: what it shows is what the commands print, and it names every command.

python -m tests.cli.test_document    # writes the outputs anew
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import click
import pytest
from click.testing import CliRunner

from tests.cli.surroundings import here
from torchturbo import _doctor
from torchturbo.cli import main
from torchturbo.hardware import Reading

PATH = Path(__file__).parents[2] / "docs" / "cli.md"
SHOWN = re.compile(r"(?<=```console\n)\$ (torchturbo [^\n]*)\n(.*?)(?=```)", re.DOTALL)
DOCUMENT = PATH.read_text(encoding="utf-8")


@contextmanager
def as_written() -> Iterator[None]:
    """A terminal of 80 columns, and for the doctor the machine that the document speaks of."""
    hot = Reading(0, 0, 0, 95.0, 91, 405, 1410, ("heat: the hardware slows it down, by half or more",))
    facts = here("A100", around={"shared_memory": 64 * 1024**2}, readings=(hot,))
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
        mock.patch.object(_doctor, "gather", return_value=facts.report),
        mock.patch.object(_doctor, "look_around", return_value=facts.around),
    ):
        yield


def printed(line: str) -> str:
    """What a command line prints, on whichever stream."""
    with as_written():
        return CliRunner().invoke(main, shlex.split(line)[1:], prog_name="torchturbo").output


@pytest.mark.parametrize(("line", "shown"), SHOWN.findall(DOCUMENT))
def test_what_is_shown_is_what_is_printed(
    line: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    out = printed(line)
    assert doctest.OutputChecker().check_output(shown, out, doctest.ELLIPSIS), out


def test_every_command_is_named() -> None:
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"^\| \[?`{name}`", DOCUMENT, flags=re.MULTILINE)
    assert len(SHOWN.findall(DOCUMENT)) == DOCUMENT.count("```console") > 3


def _write() -> None:
    """Puts in what the commands print now; the versions at the head of a diagnosis are left open."""

    def anew(found: re.Match[str]) -> str:
        out = printed(found[1])
        return (
            f"$ {found[1]}\n{re.sub(r'^torchturbo [0-9].*?(?=^$)', 'torchturbo ...' + chr(10), out, flags=re.M | re.S)}"
        )

    PATH.write_text(SHOWN.sub(anew, DOCUMENT), encoding="utf-8")


if __name__ == "__main__":
    _write()
