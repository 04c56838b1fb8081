"""`torch.compile` around whole training loops: the outermost modules that are called in it run compiled, in place.

A graph through `backward()` and the optimizer's step would break in many pieces, and one over a model that is passed
around by hand needs the model to be wrapped. A region compiles what is called, where it is called:
`torchturbo.regions._compiled` does it, and `torchturbo.regions._compiler` tells what came of it.
"""

from __future__ import annotations

import copy
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torchturbo.errors import OptionValueError, near
from torchturbo.regions._compiled import ASKED, asked_by, call_compiled, forget
from torchturbo.regions._functions import Function, call_function
from torchturbo.regions._targets import Asked, Compiled, compilations
from torchturbo.settings._base import TORCH, Setting, Values
from torchturbo.settings._edits import always

__all__ = ["Compiled", "Function", "Keywords", "call_compiled", "call_function", "compilations", "compile", "forget"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Keywords(Mapping[str, object]):
    """Keywords of `torch.compile` as a frozen mapping, which hashes and pickles.

    Args:
        values: the keywords, which are copied.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {name: _copied(value) for name, value in sorted(values.items())}

    def __getitem__(self, name: str) -> object:
        return _copied(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Keywords) else NotImplemented

    def __hash__(self) -> int:
        # Not of the values: backends have options that are lists.
        return hash(tuple(self._values))

    def __copy__(self) -> Keywords:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Keywords:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Keywords, (self._values,)

    def __repr__(self) -> str:
        return repr(self._values)


def _copied(value: object) -> object:
    return copy.deepcopy(dict(value)) if isinstance(value, Mapping) else value


def _one_of(*types: type, words: str) -> Callable[[object], str | None]:
    return lambda value: None if isinstance(value, types) else f"expected {words}"


def _mode(value: object) -> str | None:
    if value in MODES:
        return None
    return f"expected one of {', '.join(map(repr, MODES))}; {near(str(value), MODES)}"


def _backend(value: object) -> str | None:
    return None if isinstance(value, str) or callable(value) else "expected the name of a backend, or a function"


_bool = _one_of(bool, words="True or False")
_KEYWORDS: dict[str, Callable[[object], str | None]] = {
    "backend": _backend,
    "disable": _bool,
    "dynamic": _bool,
    "fullgraph": _bool,
    "mode": _mode,
    "options": _one_of(Mapping, words="a mapping of the backend's options"),
}


class _Compiling(Values):
    """The values of `compile`, of which one is a mapping."""

    def parse(self, option: str, value: object) -> object:
        if isinstance(value, Mapping):
            return self._parsed(option, value)
        return super().parse(option, value)

    def _parsed(self, option: str, given: Mapping[Any, object]) -> object:
        if not given:
            raise OptionValueError(f"{option}={{}}: {self._expected(given)}")
        # What is None is what torch.compile does without it.
        values = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if name not in _KEYWORDS:
                hint = near(str(name), _KEYWORDS)
                raise OptionValueError(f"{option}={given!r}: {name!r} is no keyword that it takes: {hint}")
            if name in values and (wrong := _KEYWORDS[name](value)) is not None:
                raise OptionValueError(f"{option}={given!r}: {name}={value!r}: {wrong}")
        if "mode" in values and "options" in values:
            raise OptionValueError(f"{option}={given!r}: torch.compile takes a mode or options, and not both at once")
        if values.keys() <= {"mode"}:
            return values.get("mode", "default")
        return Keywords(values)

    @property
    def annotation(self) -> str:
        """The values as a type annotation."""
        modes = ", ".join(f'"{mode}"' for mode in MODES)
        return f"bool | Literal[{modes}] | Mapping[str, object] | None"


def _unsupported() -> str | None:
    """Why torch.compile cannot work in this Python, as torch itself would say it; asking torch imports all of it."""
    # What each torch's torch.compile checks first.
    too_new = next(python for torch, python in _TOO_NEW if torch <= TORCH)
    if sys.version_info >= too_new:
        return f"torch.compile of this torch does not work in Python {too_new[0]}.{too_new[1]} and newer"
    if sysconfig.get_config_var("Py_GIL_DISABLED") == 1 and sys.version_info < (3, 13, 3):
        return "torch.compile does not work in Python without a global lock before 3.13.3"
    return None


_TOO_NEW = (((2, 15), (3, 16)), ((2, 10), (3, 15)), ((0, 0), (3, 14)))


def _show(raw: Asked) -> object:
    return False if raw.options is None else raw.options


compile = Setting(
    help="Run the outermost modules that are called compiled, in place, and never backward or a step: torch.compile.",
    values=_Compiling(
        (False, *MODES), {True: "default", None: False}, also="or a mapping of keywords of torch.compile"
    ),
    cells=(ASKED,),
    edits=lambda value, hardware: ((ASKED, always(asked_by(value))),),
    show=_show,
    missing=_unsupported(),
)
