"""The commands that the documents tell people to type exist, with their options and values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from torchturbo._catalogue import OPTIONS
from torchturbo._sources import parse
from torchturbo.cli import main
from torchturbo.profiles import PROFILES

ROOT = Path(__file__).parents[2]
FENCES = re.compile(r"^( *)```sh\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
TOLD = [
    (path.name, line.strip())
    for path in sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
    for _, fence in FENCES.findall(path.read_text())
    for line in fence.splitlines()
    if re.search(r"\btorchturbo (?!=)[a-z]", line) and not line.strip().startswith(("python -c", "pytest"))
]


def test_documents_tell_some() -> None:
    assert len([document for document, _ in TOLD if document == "troubleshooting.md"]) >= 12


@pytest.mark.parametrize(("document", "line"), TOLD)
def test_a_command_that_is_told_of_can_be_typed(document: str, line: str) -> None:
    words = shlex.split(line)
    command, *arguments = words[words.index("torchturbo") + 1 :]
    context = click.Context(main)
    found = main.get_command(context, command)
    assert found is not None, f"{document}: there is no command {command}"
    known = {
        name for each in found.params if isinstance(each, click.Option) for name in (*each.opts, *each.secondary_opts)
    }
    for place, word in enumerate(arguments):
        if word.startswith("--"):
            assert word in known, f"{document}: {command} has no option {word}"
        if arguments[place - 1] == "--set":
            option, _, value = word.partition("=")
            assert option in OPTIONS, f"{document}: there is no option {option}"
            parse(option, value)
        if arguments[place - 1] == "--profile":
            assert word in PROFILES
