"""The command line: a file is a command, words of its own are near the ones that exist, and codes say what happened."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import torchturbo.cli
from torchturbo import __version__, turbo
from torchturbo.cli import main


def run(*arguments: str) -> tuple[int, str, str]:
    """What a command line ends with, prints, and complains of."""
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_every_file_of_the_folder_is_a_command_with_help() -> None:
    folder = Path(torchturbo.cli.__file__).parent
    files = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    context = click.Context(main)
    assert main.get_command(context, "nothing") is None
    assert main.list_commands(context) == sorted(name.replace("_", "-") for name in files)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert command.help
        code, out, _ = run(name, "--help")
        assert (code, out.startswith("Usage:")) == (0, True)


def test_a_new_file_is_a_new_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "say_hello.py").write_text(
        "import click\n\n@click.command()\ndef say_hello():\n    'Says hello.'\n    click.echo('hello')\n"
    )
    (tmp_path / "_private.py").write_text("raise AssertionError\n")
    (tmp_path / "ahead.py").write_text("raise AssertionError('only looked up by name')\n")
    monkeypatch.setattr(torchturbo.cli, "__path__", [*torchturbo.cli.__path__, str(tmp_path)])
    try:
        known = main.list_commands(click.Context(main))
        assert known == sorted(known)
        assert known.index("ahead") < known.index("report") < known.index("say-hello")
        assert run("say-hello") == (0, "hello\n", "")
        (tmp_path / "ahead.py").unlink()
        assert re.search(r"  say-hello +Says hello\.\n", run("--help")[1])
        assert "private" not in run("--help")[1]
        assert run("say_hello")[0] == 2
    finally:
        sys.modules.pop("torchturbo.cli.say_hello", None)
        vars(torchturbo.cli).pop("say_hello", None)


def test_help_names_the_commands() -> None:
    for flag in ("--help", "-h"):
        code, out, _ = run(flag)
        assert code == 0
        assert "report" in out
        assert "Train and infer faster in PyTorch" in out


def test_a_command_that_does_not_exist_is_refused_with_the_near_ones() -> None:
    code, out, err = run("reprot")
    assert (code, out) == (2, "")
    assert "there is no command 'reprot': did you mean 'report'?" in err


def test_an_option_that_does_not_exist_is_refused() -> None:
    code, out, err = run("report", "--jsno")
    assert (code, out) == (2, "")
    assert "--json" in err


def test_without_a_command_it_says_how_it_is_used() -> None:
    code, out, err = run()
    assert code == 2
    assert "Usage:" in out + err


def test_its_version_is_ours() -> None:
    assert run("--version") == (0, f"torchturbo, version {__version__}\n", "")


def test_report_prints_for_people() -> None:
    code, out, err = run("report")
    assert (code, err) == (0, "")
    assert "matmul_precision" in out
    assert "Hardware" in out


def test_report_prints_json_that_no_width_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with turbo("debug"):
        code, out, err = run("report", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["options"]["anomaly"]["now"] is True
    assert told["blocks"][0]["profile"] == "debug"
    assert max(map(len, out.splitlines())) > 80
    assert out.endswith("}\n")


def test_completion_in_a_shell_knows_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "torchturbo rep")
    monkeypatch.setenv("COMP_CWORD", "1")
    result = CliRunner().invoke(
        main, prog_name="torchturbo", complete_var="_TORCHTURBO_COMPLETE", env={"_TORCHTURBO_COMPLETE": "bash_complete"}
    )
    assert "report" in result.output


# ----------------------------------------------------------------------------------------- as people start it


def started(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_torchturbo_is_the_same_command() -> None:
    done = started("-m", "torchturbo", "report", "--json", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["options"]["num_threads"]["now"] == 1
    assert {found["name"] for found in told["environment"]} >= {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    wrong = started("-m", "torchturbo", "nothing")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Usage: python -m torchturbo ")
    known = "bench, check, completion, doctor, profile, profiles, report, run, settings, tune, tune-loader"
    assert f"known: {known}\n" in wrong.stderr


def test_as_a_module_it_ends_with_the_commands_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ignored", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("torchturbo", run_name="__main__")
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_the_script_that_is_installed_is_this_group() -> None:
    assert EntryPoint("torchturbo", "torchturbo.cli:main", "console_scripts").load() is main
    text = (Path(torchturbo.cli.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'torchturbo = "torchturbo.cli:main"' in text
