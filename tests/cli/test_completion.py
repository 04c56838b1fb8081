"""Tab: what it completes, by click's own classes and in a real bash, and what it need not load for that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete, ZshComplete

from tests.cli.conftest import Run
from torchturbo._catalogue import OPTIONS
from torchturbo.cli import main
from torchturbo.cli._shells import Bash
from torchturbo.profiles import PROFILES
from torchturbo.testing import MACHINES


def completed(line: str) -> list[str]:
    """What Tab offers at the end of a line, in a shell that has a word for what blanks part."""
    *before, last = line.split(" ")[1:]
    shell = ShellComplete(main, {}, "torchturbo", "_TORCHTURBO_COMPLETE")
    return [item.value for item in shell.get_completions(before, last)]


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_commands_and_their_options() -> None:
    assert completed("torchturbo ") == main.list_commands(click.Context(main))
    assert completed("torchturbo re") == ["report"]
    assert completed("torchturbo doctor --j") == ["--json"]
    assert completed("torchturbo run --pro") == ["--profile"]
    assert completed("torchturbo completion ") == ["bash", "zsh", "fish"]


def test_profiles_of_ours_and_of_the_file(tmp_path: Path) -> None:
    for line in ("torchturbo run --profile ", "torchturbo profiles ", "torchturbo check --profile "):
        assert completed(line) == list(PROFILES)
    assert completed("torchturbo run --profile=f") == ["fast"]
    assert completed("torchturbo profiles fast re") == ["reproducible"]
    (tmp_path / "torchturbo.toml").write_text("[profiles.mine]\nseed = 1\n")
    assert completed("torchturbo run --profile ") == [*PROFILES, "mine"]
    (tmp_path / "torchturbo.toml").write_text("profiles = [\n")
    assert completed("torchturbo run --profile m") == ["max"]
    (tmp_path / "torchturbo.toml").write_text("profiles = 3\n")
    assert completed("torchturbo run --profile m") == ["max"]


def test_options_and_after_the_equals_sign_their_values() -> None:
    assert completed("torchturbo run --set ") == [f"{name}=" for name in OPTIONS]
    assert completed("torchturbo run --set autoc") == ["autocast="]
    assert completed("torchturbo run --set autocast=") == [
        f"autocast={its}" for its in ("auto", "bf16", "fp16", "none")
    ]
    assert completed("torchturbo run --set seed=1 --set tf32=T") == ["tf32=true"]
    assert completed("torchturbo run --set seed=") == []
    assert completed("torchturbo settings cudnn_b") == ["cudnn_benchmark", "cudnn_benchmark_limit"]


def test_machines() -> None:
    assert completed("torchturbo profiles --machine ") == list(MACHINES)
    assert completed("torchturbo profiles --machine rt") == ["RTX 3090", "RTX 4090"]


def test_scripts_are_files_and_what_follows_is_theirs() -> None:
    shell = ShellComplete(main, {}, "torchturbo", "_TORCHTURBO_COMPLETE")
    for line in (["run"], ["run", "--seed", "3"], ["run", "train.py"], ["run", "-m"], ["check"]):
        (item,) = shell.get_completions(line, "tr")
        assert (item.type, item.value) == ("file", "tr")
    (item,) = shell.get_completions(["run", "train.py"], "--pro")
    assert item.type == "file"


def test_the_script_is_printed(typed: Run) -> None:
    for shell, words in (
        ("bash", "complete -o nosort -F"),
        ("zsh", "#compdef torchturbo"),
        ("fish", "complete --no-files"),
    ):
        code, out, err = typed("completion", shell)
        assert (code, err) == (0, "")
        assert words in out
        assert "_TORCHTURBO_COMPLETE" in out
    code, out, err = typed("completion", "tcsh")
    assert (code, out) == (2, "")
    assert "'bash', 'zsh', 'fish'" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "place", "offered"),
    [
        ("torchturbo run --set autocast = b", 5, "plain,bf16"),
        ("torchturbo run --set autocast =", 4, "plain,auto\nplain,bf16\nplain,fp16\nplain,none"),
        ("torchturbo run --set autoc", 3, "plain,autocast="),
        ("torchturbo run --profile = fa", 4, "plain,fast"),
        ("torchturbo profiles --machine rtx\\ 3", 3, "plain,RTX\\ 3090"),
        ("torchturbo run tr", 2, "file,tr"),
    ],
)
def test_bash_which_parts_words_at_equals_signs(
    words: str, place: int, offered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(place))
    assert Bash(main, {}, "torchturbo", "_TORCHTURBO_COMPLETE").complete() == offered


def test_other_shells_are_told_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "torchturbo profiles inf")
    monkeypatch.setenv("COMP_CWORD", "2")
    told = ZshComplete(main, {}, "torchturbo", "_TORCHTURBO_COMPLETE").complete()
    assert told == f"plain\ninference\n{PROFILES['inference'].gain}"


COMMAND = """\
#!{python}
import sys
from torchturbo.cli import main
sys.path_hooks.append(None)
class Refuses:
    def find_spec(self, name, *rest):
        if name == "torch":
            print("plain,torch-was-imported")
            sys.exit()
sys.path_hooks.pop()
sys.meta_path.insert(0, Refuses())
main(prog_name="torchturbo")
"""
SHELL = """
eval "$(torchturbo completion bash)"
compopt() { :; }
offered() {
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
    _torchturbo_completion torchturbo
    echo "${COMPREPLY[*]}"
}
complete -p torchturbo
offered torchturbo do
offered torchturbo run --profile m
offered torchturbo run --set deterministic = w
offered torchturbo settings cudnn_benchmark_
offered torchturbo profiles --machine b
"""


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="there is no bash")
def test_in_a_real_bash_without_torch(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "torchturbo"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(["bash", "--norc", "-c", SHELL], env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _torchturbo_completion torchturbo",
        "doctor",
        "max",
        "warn",
        "cudnn_benchmark_limit",
        "B200 B580",
    ]
