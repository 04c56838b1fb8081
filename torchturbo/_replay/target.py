"""Functions by name, as ``train.py:step``, ``package.module:step`` or ``train.py:make()``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from torchturbo.errors import TargetError, near

HOW = (
    "write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, as in train.py:step; with () after it, as in "
    "train.py:make_step(), what it returns is run"
)


@contextmanager
def as_script(text: str) -> Iterator[None]:
    """A block in which `sys.argv` is that of a script that was started without arguments.

    Args:
        text: the function's name, as `resolve` takes it.
    """
    before = sys.argv
    sys.argv = [text.rpartition(":")[0]]
    try:
        yield
    finally:
        sys.argv = before


def resolve(text: str) -> Callable[..., Any]:
    """The function of that name; its module is imported, and not run as ``__main__``.

    Args:
        text: a file or a module, a colon, and a name in it; with ``()`` at its end it is called once, and what it
            returns is the function.

    Raises:
        TargetError: there is no such function; says what to write.
    """
    where, _, name = text.rpartition(":")
    makes = name.endswith("()")
    name = name.removesuffix("()")
    if not where or not name:
        raise TargetError(f"{text!r} names no function: {HOW}")
    try:
        found: Any = _module(where, text)
    except SystemExit as error:
        raise TargetError(
            f"{where} ended by sys.exit({'' if error.code is None else repr(error.code)}) when it was imported, "
            'without arguments: put what it does as a script under if __name__ == "__main__":'
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each, value in vars(found).items() if callable(value) and not each.startswith("_")]
            raise TargetError(f"{where} has no {part!r}: {near(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise TargetError(f"{text} is a {type(found).__name__}, and no function: {HOW}")
    try:
        made = found() if makes else found
    except SystemExit as error:
        raise TargetError(f"{text} ended by sys.exit(), and returned no function to be run") from error
    if not callable(made):
        raise TargetError(f"{text} returned a {type(made).__name__}, and no function to be run")
    function: Callable[..., Any] = made
    return function


def _module(where: str, text: str) -> ModuleType:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{where}.".startswith(f"{error.name}."):
                raise TargetError(f"there is no module {where!r}, asked for by {text!r}: {HOW}") from None
            raise
    path = Path(where).resolve()
    if not path.is_file():
        raise TargetError(f"there is no file {where!r}, asked for by {text!r}: {HOW}")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or name in sys.stdlib_module_names:
        name = f"checked_{name}"
    if str(path.parent) not in sys.path:
        # What stands beside a script is found by it.
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ImportError) and "no known parent package" in str(error):
            folder, dotted = _in_its_package(path)
            raise TargetError(
                f"{where} imports from the package that it is in, which only works where it is imported as a part of "
                f"it: write {dotted}:{text.rpartition(':')[2]}, in the folder {folder}"
            ) from error
        raise
    return module


def _in_its_package(path: Path) -> tuple[Path, str]:
    """The folder that a file's package is imported from, and the file's name as a module there."""
    folder, names = path.parent.parent, [path.parent.name, path.stem]
    while (folder / "__init__.py").exists() and folder.name:
        folder, names = folder.parent, [folder.name, *names]
    return folder, ".".join(names)


def refuse_what_runs_later(function: Any) -> None:
    """Raises for what a call would only make, and not run.

    Args:
        function: a function, or its name.

    Raises:
        TargetError: it is no function, or a generator's or a coroutine's.
    """
    later = inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
    called = function if inspect.isroutine(function) else vars(type(function)).get("__call__")
    if any(is_one(each) for is_one in later for each in (function, called)):
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TargetError(
            f"{name} does nothing yet when it is called: check a function that runs it to its end, as "
            "lambda: asyncio.run(...) or lambda: list(...) do"
        )
    if not callable(function) and not isinstance(function, str):
        raise TargetError(f"expected a function or its name, as 'train.py:step', got {type(function).__name__}")


@contextmanager
def called(step: Callable[..., Any] | str) -> Iterator[Callable[..., Any]]:
    """A block in which a step runs that was given as a function or by its name.

    Args:
        step: the function, or its name as `resolve` takes it.

    Raises:
        TargetError: there is no such function, or a call would only make what runs later.
    """
    refuse_what_runs_later(step)
    with as_script(step) if isinstance(step, str) else nullcontext():
        function = resolve(step) if isinstance(step, str) else step
        refuse_what_runs_later(function)
        yield function


def name_of(step: Callable[..., Any] | str) -> str:
    """What a step is called.

    Args:
        step: the function, or its name.
    """
    return step if isinstance(step, str) else getattr(step, "__qualname__", type(step).__name__)
