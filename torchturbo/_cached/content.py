"""A digest of what something is made of: its values, its classes, and the code that builds.

The same in every process: nothing of it comes of places in memory, of the order of sets, or of names in `__main__`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from torchturbo._replay.bits import ONLY_STORED, parts, unseen
from torchturbo._replay.code import behind
from torchturbo._replay.values import is_array

_PLAIN = (bool, int, float, complex, bytes, type(None))
_SCALAR = frozenset((*_PLAIN, str))
_CONTAINERS = (list, tuple, deque)
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_CONSTANT = (*_PLAIN, str, tuple, frozenset, PurePath, Enum, *_OF_TORCH)
_WRAPPED = type(functools.lru_cache(print))
_NAMED = (FunctionType, _WRAPPED, type, ModuleType, BuiltinFunctionType, Tensor, *_CONSTANT)
_INSTALLED = "site-packages", "dist-packages"
FILES = 100_000
"""Names of files that are looked at."""
_READ = 2**20
"""Bytes of a file, at most, that are read; of larger ones the size and the time of the last change count."""


class Content:
    """The digest of what is added, in that order.

    Attributes:
        unseen: the classes of what could not be looked into.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: dict[int, tuple[int, Any]] = {}
        self._files = FILES
        self.unseen: set[str] = set()

    def hex(self) -> str:
        """The digest, as 32 characters."""
        return self._hash.hexdigest()

    def _feed(self, kind: str, data: bytes | str = b"") -> None:
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self._hash.update(f"{kind}:{len(raw)}:".encode())
        self._hash.update(raw)

    def add(self, value: Any, *, files: bool = True) -> None:
        """Adds a value.

        Args:
            value: anything.
            files: whether a string that names a file stands for what is in it.
        """
        kind = type(value)
        if kind is str or isinstance(value, PurePath):
            self._feed(kind.__name__, str(value))
            if files:
                self._file(str(value))
        elif kind in _SCALAR or isinstance(value, _OF_TORCH):
            self._feed(kind.__name__, repr(value))
        elif isinstance(value, CodeType):
            self._code(value)
        elif id(value) in self._seen:
            self._feed("again", str(self._seen[id(value)][0]))
        else:
            self._seen[id(value)] = len(self._seen), value  # held, so that nobody gets its place in memory
            self._add(value, kind, files)

    def _add(self, value: Any, kind: type, files: bool) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif is_array(value) and not value.dtype.hasobject:
            self._feed("array", f"{value.dtype.str} {value.shape}")
            self._feed("bytes", value.tobytes())
        elif isinstance(value, ModuleType):
            self._package(value.__name__)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType | MethodType | BuiltinFunctionType):
            self._function(value)
        elif isinstance(value, _WRAPPED):
            self.add(value.__wrapped__)
        elif isinstance(value, functools.partial):
            self._feed("partial")
            for each in (value.func, value.args, value.keywords):
                self.add(each, files=files)
        elif isinstance(value, set | frozenset):
            self._feed("set", "".join(sorted(digest(each) for each in value)))
        elif isinstance(value, Enum):
            self._feed("enum", f"{kind.__qualname__}.{value.name}")
        elif kind in (list, tuple, dict):
            self._container(value, files)
        else:
            self._object(value, files)

    def _container(self, value: Any, files: bool) -> None:
        self._feed(type(value).__name__, str(len(value)))
        entries = [each for pair in value.items() for each in pair] if isinstance(value, dict) else value
        if set(map(type, entries)) <= _SCALAR:
            # Millions of numbers or names: at once, and without a place for each.
            self._feed("entries", repr(entries))
            for each in entries if files else ():
                if type(each) is str:
                    self._file(each)
            return
        for each in entries:
            self.add(each, files=files)

    def _tensor(self, tensor: Tensor) -> None:
        with unseen():
            self._feed("tensor", f"{type(tensor).__qualname__} {tensor.dtype} {tuple(tensor.shape)} {tensor.device}")
            for name, part in parts(tensor):
                if ONLY_STORED.fullmatch(str(part.dtype)):
                    part = part.view(torch.uint8)
                part = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part.resolve_neg()
                part = part.detach().cpu().contiguous()
                size = part.numel() * part.element_size()
                self._feed("part", f"{name} {size}")
                if size:
                    self._hash.update((ctypes.c_char * size).from_address(part.data_ptr()))

    def _object(self, value: Any, files: bool) -> None:
        kind = type(value)
        self._feed("object", kind.__qualname__)
        self.add(kind)
        if isinstance(value, torch.Generator):
            self._tensor(value.get_state())
            return
        for name, each in attributes(value, self.unseen).items():
            self._feed("attribute", name)
            self.add(each, files=files)

    def _file(self, name: str) -> None:
        if not name or len(name) > 1024 or "\0" in name or "\n" in name or self._files <= 0:
            return
        import os
        import stat

        try:
            found = os.stat(name)
        except (OSError, ValueError):
            return
        if not stat.S_ISREG(found.st_mode):
            return
        self._files -= 1
        if found.st_size <= _READ:
            try:
                with open(name, "rb") as file:
                    self._feed("file", hashlib.blake2b(file.read(), digest_size=16).digest())
                return
            except OSError:
                pass
        self._feed("file", f"{found.st_size} {found.st_mtime_ns}")

    # ------------------------------------------------------------------------------------------------------------ code

    def _package(self, module: str) -> None:
        top = module.partition(".")[0]
        version = getattr(sys.modules.get(top), "__version__", "")
        self._feed("module", f"{module} {version if isinstance(version, str) else ''}")

    def _class(self, kind: type) -> None:
        for each in kind.__mro__:
            self._feed("class", each.__qualname__)
            if not _is_users(each):
                self._package(each.__module__)
                continue
            for name, attribute in sorted(vars(each).items()):
                for function in behind(attribute):
                    if isinstance(function, FunctionType | _WRAPPED):
                        self._feed("method", name)
                        self.add(function)
                    elif isinstance(function, _CONSTANT) and name[:2] != "__":
                        self._feed("constant", name)
                        self.add(function, files=False)

    def _function(self, function: Any) -> None:
        if isinstance(function, MethodType):
            self._feed("method", function.__name__)
            self.add(function.__self__)
            function = function.__func__
        self._feed("function", getattr(function, "__qualname__", ""))
        if not isinstance(function, FunctionType) or not _is_users(function):
            self._package(getattr(function, "__module__", None) or "builtins")
            return
        self._code(function.__code__)
        for each in (function.__defaults__, function.__kwdefaults__):
            self.add(each, files=False)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:
                continue  # empty: the name has no value yet
        names = sorted({name for code in _codes(function.__code__) for name in code.co_names})
        self._of_module(function.__globals__, names)

    def _of_module(self, variables: Mapping[str, Any], names: Sequence[str], deep: int = 3) -> None:
        """Adds what some code names of a module, and of the user's modules that it names there."""
        for name in names:
            value = variables.get(name)
            if isinstance(value, _NAMED):
                self._feed("global", name)
                self.add(value)
            if deep and isinstance(value, ModuleType) and _is_users(value):
                self._of_module(vars(value), names, deep - 1)

    def _code(self, code: CodeType) -> None:
        self._feed("code", code.co_code)
        names = *code.co_names, "", *code.co_varnames, "", *code.co_freevars
        self._feed("names", f"{names} {code.co_flags} {code.co_argcount} {code.co_kwonlyargcount}")
        for constant in code.co_consts:
            self.add(constant, files=False)


def digest(*values: Any) -> str:
    """The digest of some values, as 32 characters.

    Args:
        values: any.
    """
    content = Content()
    for value in values:
        content.add(value)
    return content.hex()


def attributes(value: Any, unseen: set[str] | None = None) -> Mapping[str, Any]:
    """What an object is made of, by name: what pickle takes of it, or its attributes where it is not for pickle.

    Args:
        value: an object that is no container.
        unseen: gets the class of what cannot be looked into.
    """
    if isinstance(value, Mapping) and type(value) is dict:
        return {"": value}
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:
        found = getattr(value, "__dict__", None)
        if found is None and unseen is not None:
            unseen.add(type(value).__qualname__)
        return dict(found or {})
    if isinstance(reduced, str):
        return {"": reduced}
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    found = {"args": tuple(each for each in args if not isinstance(each, type))} if args else {}
    for each in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        found |= each if isinstance(each, dict) else {"state": each} if each is not None else {}
    if items is not None:
        found["entries"] = list(items)
    if pairs is not None:
        found["pairs"] = [tuple(pair) for pair in pairs]
    return {str(name): its for name, its in found.items()}


def _is_users(thing: Any) -> bool:
    """Whether a class or a function is somebody's own, and of no installed package, whose version stands for it."""
    home = str(thing.__name__ if isinstance(thing, ModuleType) else thing.__module__)
    if home.partition(".")[0] in sys.stdlib_module_names | {"torch", "torchturbo"} and home != "__main__":
        return False
    file = thing.__code__.co_filename if isinstance(thing, FunctionType) else None
    file = file or getattr(sys.modules.get(home), "__file__", None) or ""
    return not any(folder in file for folder in _INSTALLED)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


__all__ = ["Content", "attributes", "digest"]
