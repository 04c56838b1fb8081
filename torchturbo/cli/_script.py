"""Runs a script, a module, a folder or stdin as python itself would, in a `__main__` of its own.

What python does for a file is written in C and done again here; the rest goes through `runpy`, as it does there.
"""

from __future__ import annotations

import builtins
import io
import os
import runpy
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from pkgutil import get_importer, read_code
from types import CodeType, ModuleType, TracebackType
from typing import Any

import click

_RUNPY: Any = runpy
_OURS: list[ModuleType] = []
"""The `__main__` that was there before: code of it is still running, and must not lose its names."""


def refuse_missing(script: str) -> None:
    """Raises for a script that python could not open.

    Raises:
        UsageError: it cannot be opened, or stdin is a terminal.
    """
    if script == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("'-' runs what comes through stdin, and that is a terminal: name a script")
    elif not os.path.isdir(script):
        try:
            io.open_code(os.path.abspath(script)).close()
        except OSError as error:
            hint = ": the name of a module goes after -m" if not os.path.exists(script) else ""
            raise click.UsageError(f"{script!r} cannot be opened ({error.strerror}){hint}") from None


def run(
    script: str,
    arguments: tuple[str, ...],
    *,
    module: bool,
    hint: Callable[[BaseException], str | None] = lambda error: None,
) -> None:
    """Runs it. What it raises comes out, and python then shows what it would show without us.

    Args:
        script: a file, a folder or zip file with a ``__main__.py``, ``-`` for stdin, or the name of a module.
        arguments: what it finds in ``sys.argv``.
        module: whether it is the name of a module.
        hint: a line for stderr after the traceback of what ends it, or None.
    """
    act = _prepared(script, module=module)
    sys.argv[:] = ["-m" if module else script, *arguments]
    try:
        act()
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        _show_of(error, trace, hint)
        raise


def _prepared(script: str, *, module: bool) -> Callable[[], object]:
    """The import path and a `__main__` as python makes them, and what then runs."""
    main = _new_main()
    names = vars(main)
    if module:
        _begin_path_with(os.getcwd())
        return lambda: _RUNPY._run_module_as_main(script)
    file = os.path.join(os.getcwd(), script)
    if script != "-" and get_importer(file) is not None:
        _begin_path_with(os.path.abspath(script), always=True)
        return lambda: _RUNPY._run_module_as_main("__main__", False)
    names["__cached__"] = None
    if script == "-":
        _begin_path_with("")
        names["__file__"] = "<stdin>"
        return lambda: exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), names)
    _begin_path_with(os.path.dirname(os.path.realpath(file)))
    names["__file__"] = file
    return lambda: exec(_code_of(file, names), names)


def _code_of(file: str, names: dict[str, object]) -> CodeType:
    with io.open_code(file) as opened:
        code: CodeType | None = read_code(opened)
    names["__loader__"] = (SourceFileLoader if code is None else SourcelessFileLoader)("__main__", file)
    if code is None:
        with io.open_code(file) as opened:
            code = compile(opened.read(), file, "exec", dont_inherit=True)
    return code


def _new_main() -> ModuleType:
    _OURS.append(sys.modules["__main__"])
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    # multiprocessing has noted it under a name of its own, by which what spawned processes send back is found.
    for name in [name for name, known in sys.modules.items() if known is _OURS[-1]]:
        sys.modules[name] = main
    return main


def _begin_path_with(folder: str, *, always: bool = False) -> None:
    """Puts what python begins `sys.path` with for a script in place of what it has begun it with for us."""
    if not sys.flags.safe_path:
        del sys.path[0]
    if always or not sys.flags.safe_path:
        sys.path.insert(0, folder)


def _show_of(raised: BaseException, trace: TracebackType | None, hint: Callable[[BaseException], str | None]) -> None:
    """Has python show only the script's own frames of what ends it, and what may help after them."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, whole: TracebackType | None) -> None:
        sys.excepthook = shown
        if error is raised:
            whole = trace
            error.__traceback__ = sys.last_traceback = trace
        shown(kind, error, whole)
        said = hint(error)
        if said and sys.stderr is not None:
            sys.stderr.write(said + "\n")

    sys.excepthook = show
