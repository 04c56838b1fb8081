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
from torchturbo._arrays import float_arrays
from torchturbo.cli import _script, _start
from torchturbo.testing import pretend_hardware

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


def test_a_hint_comes_after_what_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "script.py"
    for said in ("try this", None):
        file.write_text("raise ValueError('no')\n")
        sys.excepthook = lambda kind, error, trace: sys.stderr.write(f"{error!r}\n")
        with pytest.raises(ValueError, match="no") as caught:
            _script.run(str(file), (), module=False, hint=lambda error, said=said: said)  # type: ignore[misc]
        sys.excepthook(caught.type, caught.value, caught.value.__traceback__)
        assert capsys.readouterr().err == "ValueError('no')\n" + (f"{said}\n" if said else "")


MIXED = "torch.zeros(2, 2).index_put_((torch.tensor([1]),), torch.ones(1, 2).bfloat16())"


def test_autocast_is_named_where_it_may_have_ended_a_script() -> None:
    for wrong in (MIXED, "torch.det(torch.eye(2).bfloat16())", "torch.ones(2).bfloat16() @ torch.ones(2)"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            eval(wrong)
        assert _start._hint(None, caught.value) is None
        assert "computed in bf16 here" in str(_start._hint("bf16", caught.value))
        assert "--set autocast=none" in str(_start._hint("bf16", caught.value))
    probabilities = torch.softmax(3 * torch.arange(3000.0).reshape(500, 6).sin().bfloat16(), -1)
    with pytest.raises(ValueError, match="Simplex") as refused:
        torch.distributions.Categorical(probabilities, validate_args=True)  # Dynamo turns the default off
    assert _start._hint("fp16", refused.value)
    for other in (ValueError("no such file"), KeyError("dtype"), KeyboardInterrupt("dtype")):
        assert _start._hint("bf16", other) is None


@pytest.fixture
def numpy_as_it_was() -> Iterator[None]:
    assert "numpy" not in vars(torch.Tensor)
    yield
    if "numpy" in vars(torch.Tensor):
        del torch.Tensor.numpy


@pytest.mark.usefixtures("numpy_as_it_was")
def test_numpy_gets_float32_of_what_autocast_has_made_bfloat16() -> None:
    numpy = pytest.importorskip("numpy")
    half = torch.tensor([1.0, 2.5], dtype=torch.bfloat16)
    for machine, options in (("cpu", {}), ("cpu-bf16", {"autocast": None}), ("cpu-bf16", {"autocast": "fp16"})):
        with pretend_hardware(machine):
            float_arrays(turbo("fast", **options))
        with pytest.raises(TypeError, match="BFloat16"):
            half.numpy()
    with pretend_hardware("cpu-bf16"):
        float_arrays(turbo("fast"))
    wanting = half.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="requires grad"):
        wanting.numpy()
    found = [half.numpy(), numpy.asarray(half), wanting.numpy(force=True), wanting.data.numpy()]
    for array in found:
        assert array.dtype == numpy.float32
        assert array.tolist() == [1.0, 2.5]
    assert torch.ones(1, dtype=torch.float64).numpy().dtype == numpy.float64
    whole = torch.zeros(2)
    whole.numpy()[1] = 3  # which shares its memory, as ever
    assert whole.tolist() == [0, 3]


@pytest.mark.usefixtures("numpy_as_it_was")
def test_a_script_under_autocast_has_arrays(ended: list[Callable[[], None]], tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    file = tmp_path / "script.py"
    file.write_text("import torch; y = torch.nn.Linear(2, 2)(torch.ones(1, 2)); array = y.detach().numpy()\n")
    with pretend_hardware("cpu-bf16"):
        _start.launched(turbo("fast"), str(file), (), module=False, report=False)
    assert vars(main())["y"].dtype is torch.bfloat16
    assert str(vars(main())["array"].dtype) == "float32"
