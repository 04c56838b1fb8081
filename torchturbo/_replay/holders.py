"""What holds values by name or number: containers, classes and variables; how each is kept and put back."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from types import CellType
from typing import Any

from torch import Tensor

NOTHING: Any = object()


def fill(container: Any, copy: Any) -> None:
    """Gives a container back what it held, if it holds anything else; not one object is exchanged for its equal."""
    # By the methods of Python's own: a subclass may refuse, or do more (Hugging Face's outputs do).
    if isinstance(container, dict):
        plain: Any = OrderedDict if isinstance(container, OrderedDict) else dict
        now = plain.items(container)
        if len(now) == len(copy) and all(a is c and b is d for (a, b), (c, d) in zip(now, copy.items(), strict=True)):
            return
        plain.clear(container)
        for key, value in copy.items():
            plain.__setitem__(container, key, value)
        return
    now = list(container)
    if len(now) == len(copy) and all(a is b for a, b in zip(now, copy, strict=True)):
        return
    if isinstance(container, list):
        list.__setitem__(container, slice(None), copy)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, copy)
    else:
        deque.clear(container)
        deque.extend(container, copy)


def shallow(container: Any) -> Any:
    """What a container holds, as a plain one."""
    # As a plain one: the copy is ours, and a subclass may do as it likes when it is made.
    return dict(container) if isinstance(container, dict) else list(container)


def set_attributes(kind: type, attributes: dict[str, Any]) -> None:
    """Gives a class the attributes that it had."""
    now = dict(vars(kind))
    for name in now.keys() | attributes.keys():
        if is_special(name) or now.get(name, NOTHING) is attributes.get(name, NOTHING):
            continue
        if name in attributes:
            setattr(kind, name, attributes[name])
        else:
            delattr(kind, name)


def is_special(name: str) -> bool:
    """Whether a name is Python's own, as ``__doc__``; classes get and lose such when they are used."""
    return (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"


def content(cell: CellType) -> Any:
    """What a variable of a closure stands for, or `NOTHING`."""
    try:
        return cell.cell_contents
    except ValueError:
        return NOTHING


def set_content(cell: CellType, before: Any) -> None:
    """Gives a variable of a closure what it stood for."""
    if before is NOTHING:
        if content(cell) is not NOTHING:
            del cell.cell_contents
    elif content(cell) is not before:
        cell.cell_contents = before


CONTAINERS = dict, list, set, deque
"""What `Keeper.container` takes."""


def set_global(names: dict[str, Any], name: str, value: Any) -> None:
    """Gives a global variable what it stood for."""
    if value is NOTHING:
        names.pop(name, None)
    elif names.get(name, NOTHING) is not value:
        names[name] = value


def changed(name: str, container: Any, copy: Any) -> Iterator[tuple[str, Any]]:
    """What a container holds that it did not hold before, each with its name.

    Args:
        name: of the container; one that ends with a dot is an object's, and holds its attributes.
        container: as it is now.
        copy: as `shallow` made it.
    """
    if isinstance(container, dict):
        for key, value in dict.items(container):
            if copy.get(key, NOTHING) is not value and not isinstance(key, Tensor):
                yield f"{name}{key}" if name.endswith(".") else f"{name}[{key!r}]", value
    elif not isinstance(container, set):
        for number, value in enumerate(container):
            if number >= len(copy) or copy[number] is not value:
                yield f"{name}[{number}]", value
