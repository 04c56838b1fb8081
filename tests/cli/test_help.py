"""Every command explains itself: an example, exit codes, in 80 columns; what is wrong is said in a line."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from tests.cli.conftest import Run
from torchturbo.cli import main

COMMANDS = main.list_commands(click.Context(main))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_the_exit_codes_and_fits(typed: Run, command: str) -> None:
    code, out, err = typed(*filter(None, [command]), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(rf"\n  Example.*:\n(?:      .*\n)*?      .*torchturbo {command}", out), "an example of its own"
    assert "\n  Exit codes: " in out
    assert "2 " in out.partition("Exit codes: ")[2]
    assert "\\b" not in out


def test_each_command_has_a_line_that_is_not_cut(typed: Run) -> None:
    lines = typed("--help")[1].partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_is_not_there_is_one_line(typed: Run, command: str) -> None:
    code, out, err = typed(command, "--no-such-option")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: ")
    assert "--no-such-option" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["reprot"],
        ["run", "--profile", "fats", __file__],
        ["run", "--set", "num_treads=4", __file__],
        ["run", "--set", "num_threads", __file__],
        ["check", "--profile", "fats", "json:loads"],
        ["profiles", "fats"],
        ["settings", "sed"],
    ],
)
def test_what_is_written_wrong_ends_with_2_and_one_line(typed: Run, words: list[str]) -> None:
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    usage, hint, empty, error = err.splitlines()
    assert usage.startswith("Usage: torchturbo ")
    assert hint.startswith("Try 'torchturbo ")
    assert (empty, error[:7]) == ("", "Error: ")


LIGHT = """
import sys
sys.argv = ["torchturbo", *{words}]
from torchturbo.cli import main
try:
    main(prog_name="torchturbo")
except SystemExit as ended:
    heavy = [name for name in ("torch", "rich", "numpy", "pynvml") if name in sys.modules]
    sys.exit(f"{{heavy}}" if heavy else ended.code)
"""


def test_help_of_all_commands_loads_no_torch() -> None:
    code = LIGHT.format(words=["--help"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
