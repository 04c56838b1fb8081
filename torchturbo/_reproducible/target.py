"""Functions by name, as ``train.py:step``, ``package.module:step`` or ``train.py:make()``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torchturbo.errors import TargetError, near

HOW = (
    "write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, as in train.py:step; with () after it, as in "
    "train.py:make_step(), what it returns is checked"
)


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
    found: Any = _module(where, text)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each, value in vars(found).items() if callable(value) and not each.startswith("_")]
            raise TargetError(f"{where} has no {part!r}: {near(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise TargetError(f"{text} is a {type(found).__name__}, and no function: {HOW}")
    made = found() if makes else found
    if not callable(made):
        raise TargetError(f"{text} returned a {type(made).__name__}, and no function to be checked")
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
    except BaseException:
        del sys.modules[name]
        raise
    return module
