"""What a dataset holds that worker processes would get wrong, found by looking at its attributes and its code.

Nothing of the dataset is called or computed. What is found keeps workers away; what is not found (in extensions, in
what is made later) is as with workers that the code itself asks for.
"""

from __future__ import annotations

import dis
import functools
import inspect
import io
import random
import re
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import torch

_LOOKED_AT = 2000
"""Things, at most, so that no dataset takes long."""
_EACH = 50
"""Entries of a container, at most."""
_DEPTH = 5
_DEVICE = re.compile(r"(cuda|mps|xpu)(:\d+)?")
_HANDLES = frozenset(("h5py", "lmdb", "sqlite3", "netCDF4", "tables", "rasterio", "decord", "av"))
"""Packages whose objects read a file by way of something that forked processes share."""
_MADE_FOR_WORKERS = sys.stdlib_module_names | {"torch", "torchturbo"}
_READ_BY = ("__getitem__", "__getitems__", "__call__", "forward")


class _Found(NamedTuple):
    """A thing that a dataset holds, or that its code names.

    Attributes:
        place: where, as one would write it.
        value: the thing.
    """

    place: str
    value: Any


def unfit(named: Mapping[str, Any], anew: bool) -> str | None:
    """Why no worker would get a loader's data right, or None.

    Args:
        named: what the call of the loader names.
        anew: whether workers are not forked, so that all that they need is pickled.
    """
    for found in _all(named):
        for reason in (_of_device(found), _of_one_process(found), _unpicklable(found) if anew else None):
            if reason is not None:
                return reason
    return None


def not_to_be_pinned(named: Mapping[str, Any]) -> str | None:
    """Why a loader's batches may be such that torch cannot pin them, or None.

    Args:
        named: what the call of the loader names.
    """
    for found in _all(named):
        if (reason := _of_device(found)) is not None:
            return reason
        if isinstance(found.value, torch.Tensor) and found.value.layout is not torch.strided:
            return f"{found.place} is a sparse tensor, which cannot be pinned"
    return None


def written_by(dataset: Any) -> str | None:
    """The names that a dataset, or what it reads by, writes to itself or to its module when it is read, or None.

    Args:
        dataset: the dataset.
    """
    kinds = {type(found.value) for found in _all({"dataset": dataset})}
    codes = (code for kind in kinds for function in _read_by(kind) for code in _codes(function.__code__))
    return ", ".join(sorted({name for code in codes for name in _stored(code)})) or None


def _stored(code: types.CodeType) -> Iterator[str]:
    before: dis.Instruction | None = None
    adding = False  # within `self.name += ...`, which copies the object at its beginning
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_GLOBAL":
            yield instruction.argval
        elif instruction.opname == "COPY" and instruction.arg == 1:
            adding = adding or _loads_self(before)
        elif instruction.opname == "STORE_ATTR":
            if _loads_self(before) or (adding and before is not None and before.opname == "SWAP"):
                yield instruction.argval
            adding = False
        before = instruction


def _loads_self(instruction: dis.Instruction | None) -> bool:
    if instruction is None or not instruction.opname.startswith("LOAD_FAST"):
        return False
    # Newer Pythons load two names at once.
    name = instruction.argval[-1] if isinstance(instruction.argval, tuple) else instruction.argval
    return bool(name == "self")


def copied_bytes(dataset: Any) -> int:
    """Bytes of Python objects in a dataset's containers, which forked workers come to copy as they count references.

    Args:
        dataset: the dataset.
    """
    return sum(_size(found.value) for found in _all({"dataset": dataset}) if isinstance(found.value, _CONTAINERS))


_CONTAINERS = (list, tuple, dict, set, frozenset)


def _size(container: Any) -> int:
    entries = container.items() if isinstance(container, dict) else container
    some = list(islice(entries, _EACH))
    each = sum(sys.getsizeof(entry) + sum(map(_own, entry if isinstance(entry, tuple) else ())) for entry in some)
    return sys.getsizeof(container) + (each * len(container) // len(some) if some else 0)


def _own(value: object) -> int:
    # Tensors and arrays share their memory, which counting references does not write to.
    return sys.getsizeof(value) if isinstance(value, str | bytes | int | float | tuple | list) else 0


# --------------------------------------------------------------------------------------------------- what is looked for


def _of_device(found: _Found) -> str | None:
    place, value = found
    if isinstance(value, torch.nn.Module) and next(value.parameters(), None) is not None:
        return f"{place} is a module with parameters, which is for the process that trains"
    if isinstance(value, torch.Tensor) and value.device.type not in ("cpu", "meta"):
        return f"{place} is a tensor on {value.device}, which belongs to this process"
    if isinstance(value, torch.device) and value.type not in ("cpu", "meta"):
        return f"{place} is the device {value}, which belongs to this process"
    if isinstance(value, str) and _DEVICE.fullmatch(value):
        return f"{place} is {value!r}, a device, which belongs to this process"
    return None


def _of_one_process(found: _Found) -> str | None:
    place, value = found
    kind = type(value)
    home = kind.__module__
    if isinstance(value, torch.Tensor) and value.requires_grad:
        return f"{place} is a tensor that requires gradients, which cannot be sent from process to process"
    if isinstance(value, io.IOBase):
        return f"{place} is an open file, in which all workers would move one position" if _is_open(value) else None
    if home.partition(".")[0] in _HANDLES or kind.__name__ == "VideoCapture":
        return f"{place} is a {home}.{kind.__name__}, which reads a file that workers would share"
    drawing = isinstance(value, random.Random | torch.Generator) and not isinstance(value, random.SystemRandom)
    if drawing or home.startswith("numpy.random"):
        return f"{place} is a random generator, from whose state each worker would draw the same"
    if isinstance(value, Iterator):
        return f"{place} is an iterator, which each worker would go through by itself"
    return None


def _is_open(file: io.IOBase) -> bool:
    try:
        return not file.closed and file.fileno() >= 0
    except (OSError, ValueError):
        return False  # in memory, which each process has of its own


def _unpicklable(found: _Found) -> str | None:
    place, value = found
    if "." in place and not place.startswith("the dataset."):
        return None
    kind = value if isinstance(value, types.FunctionType) else type(value)
    if "<lambda>" in kind.__qualname__ or "<locals>" in kind.__qualname__:
        return f"{place} is of a function ({kind.__qualname__}), and cannot be pickled for workers that are not forked"
    return None


# ---------------------------------------------------------------------------------------------------------- the walk


def _all(named: Mapping[str, Any]) -> Iterator[_Found]:
    """What the dataset and the function that collates hold, and what their code names; each once."""
    waiting = [
        (_Found(words, named[name]), 0)
        for name, words in (
            ("dataset", "the dataset"),
            ("collate_fn", "collate_fn"),
            ("worker_init_fn", "worker_init_fn"),
        )
        if named.get(name) is not None
    ]
    seen: set[int] = set()
    while waiting and len(seen) < _LOOKED_AT:
        found, depth = waiting.pop(0)
        if id(found.value) in seen:
            continue
        seen.add(id(found.value))
        yield found
        if depth < _DEPTH:
            waiting += ((inner, depth + 1) for inner in _within(found))


def _within(found: _Found) -> Iterator[_Found]:
    place, value = found
    if isinstance(value, str | bytes | int | float | torch.Tensor | types.ModuleType | type | io.IOBase | None):
        return
    if isinstance(value, types.FunctionType):
        yield from _of_function(place, value)
    elif isinstance(value, types.MethodType):
        yield _Found(place, value.__func__)
        yield _Found(f"{place}.__self__", value.__self__)
    elif isinstance(value, functools.partial):
        yield _Found(place, value.func)
        yield from (_Found(f"{place}'s argument", each) for each in (*value.args, *value.keywords.values()))
    elif isinstance(value, dict):
        yield from (_Found(f"{place}[{key!r}]", each) for key, each in list(islice(value.items(), _EACH)))
    elif isinstance(value, _CONTAINERS):
        yield from (
            _Found(f"an entry of {place}", each) for each in list(islice(value, _EACH)) if not isinstance(each, str)
        )
    else:
        yield from (_Found(f"{place}.{name}", each) for name, each in _attributes(value))
        for function in _read_by(type(value)):
            yield from _of_function(f"{place}.{function.__name__}", function)


def _attributes(value: object) -> Iterator[tuple[str, Any]]:
    """An object's own attributes, without a call of any code of its class."""
    with suppress(AttributeError):  # where all it has is slots
        yield from list(object.__getattribute__(value, "__dict__").items())
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType) and kind.__module__ != "builtins":
                with suppress(AttributeError):  # where it was never written
                    yield name, slot.__get__(value)


def _of_function(place: str, function: types.FunctionType) -> Iterator[_Found]:
    """What the code of a function names: globals, what it closes over, devices."""
    function = _innermost(function)
    if not _is_users(function):
        return
    for code in _codes(function.__code__):
        if "cuda" in code.co_names:
            yield _Found(f"what {place} names", "cuda")
        yield from (_Found(f"what {place} names", each) for each in code.co_consts if isinstance(each, str))
        names = (name for name in code.co_names if name in function.__globals__)
        yield from (_Found(f"{name}, which {place} names,", function.__globals__[name]) for name in names)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _Found(f"{name}, which {place} names,", cell.cell_contents)
        except ValueError:
            continue  # empty: the name has no value yet


def _is_users(function: types.FunctionType) -> bool:
    """Whether a function is of somebody's own code, and of no installed package, which is made for workers."""
    file, home = function.__code__.co_filename, str(function.__module__).partition(".")[0]
    return not any(folder in file for folder in ("site-packages", "dist-packages")) and home not in _MADE_FOR_WORKERS


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _innermost(function: types.FunctionType) -> types.FunctionType:
    """What a decorator has wrapped, if it says so."""
    inner = inspect.unwrap(function)
    return inner if isinstance(inner, types.FunctionType) else function


def _read_by(kind: type) -> list[types.FunctionType]:
    """The methods of a class that run when something of it is read, and those that they call on it."""
    waiting, found = list(_READ_BY), dict[str, types.FunctionType]()
    while waiting:
        name = waiting.pop()
        function = inspect.getattr_static(kind, name, None)
        function = function.__func__ if isinstance(function, staticmethod | classmethod) else function
        if name in found or not isinstance(function, types.FunctionType):
            continue
        function = _innermost(function)
        if _is_users(function):
            found[name] = function
            waiting += (named for code in _codes(function.__code__) for named in code.co_names)
    return list(found.values())
