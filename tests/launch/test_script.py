"""A script is run in a `__main__` of its own: the same without another process, piece by piece."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import torch

from torchturbo import turbo
from torchturbo.cli import _script, _start

SAYS = "import sys; said = (__name__, sys.argv[1:], sys.path[0])\n"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", ["what python began with", *sys.path])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(_script, "_OURS", [])


def main() -> types.ModuleType:
    return sys.modules["__main__"]


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SAYS)
    _script.run(str(file), ("--epochs", "3"), module=False)
    assert vars(main())["said"] == ("__main__", ["--epochs", "3"], str(tmp_path))
    assert main().__file__ == str(file)


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_module_of_ours.py").write_text(SAYS)
    monkeypatch.chdir(tmp_path)
    _script.run("a_module_of_ours", ("x",), module=True)
    assert vars(main())["said"] == ("__main__", ["x"], str(tmp_path))


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text(SAYS)
    _script.run(str(tmp_path), (), module=False)
    assert vars(main())["said"] == ("__main__", [], str(tmp_path))


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SAYS.encode())))
    _script.run("-", (), module=False)
    assert vars(main())["said"] == ("__main__", [], "")


def test_what_ends_it_is_shown_without_our_frames(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text("def inner():\n    raise ValueError('no')\ninner()\n")
    shown: list[list[str]] = []

    def show(kind: object, error: object, trace: types.TracebackType | None) -> None:
        frames = []
        while trace is not None:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        shown.append(frames)

    sys.excepthook = show
    with pytest.raises(ValueError, match="no") as caught:
        _script.run(str(file), (), module=False)
    sys.excepthook(caught.type, caught.value, caught.value.__traceback__)
    assert shown == [["<module>", "inner"]]
    assert sys.excepthook is show


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot be opened"):
        _script.refuse_missing(str(tmp_path / "nothing.py"))
    _script.refuse_missing(str(tmp_path))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What is to be done when Python ends."""
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(_start.atexit, "register", lambda act, *args: at_exit.append(lambda: act(*args)))
    monkeypatch.setattr(_start._inherited, "hand_down", lambda: None)
    yield at_exit
    for act in at_exit:
        act()


@pytest.mark.parametrize("ends", ["", "raise SystemExit(0)", "raise SystemExit(3)"])
def test_the_block_is_there_until_python_ends(ends: str, ended: list[Callable[[], None]], tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(f"import torch; threads = torch.get_num_threads()\n{ends}\n")
    threads = torch.get_num_threads()
    around = turbo("exact", num_threads=threads + 1)
    if ends:
        with pytest.raises(SystemExit):
            _start.launched(around, str(file), (), module=False, report=False)
    else:
        _start.launched(around, str(file), (), module=False, report=False)
    assert vars(main())["threads"] == torch.get_num_threads() == threads + 1
    ended.pop()()
    assert torch.get_num_threads() == threads
