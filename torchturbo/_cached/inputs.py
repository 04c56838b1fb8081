"""What a dataset's items come of, as a key, and a quick look at whether that has changed."""

from __future__ import annotations

import copy
import operator
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

from torchturbo._cached.content import Content, attributes, digest
from torchturbo.errors import CacheError

FORMAT = 1
"""Of the blobs and of the key. What another one has written is never read."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CLOSED = (*_PLAIN, type, FunctionType, ModuleType)
_CODE = "its class"
_SIZED = (list, dict, set, tuple)
_MOST = 500
"""Things that are looked at."""
_FEW = 16
"""Entries of a container that is looked into."""
_DEEP = 8
"""Names, one within the other, by which a thing is known."""
_EACH = 50
"""Attributes of a class that are looked at."""
_MADE_ONCE = ("builtins", "torch", "collections", "typing", "numpy")
"""Packages whose classes nobody changes."""
_OF_MODULES = frozenset(vars(torch.nn.Module())) - {"training"}
"""What each module has, hooks and containers of what else is looked at."""
Quick = list[tuple[str, Any, Any]]


class Inputs:
    """What items come of: the dataset with the code of its class, and what else takes part.

    Args:
        dataset: the dataset.
        also: what else, by name: functions that collate, the sizes of batches.
    """

    def __init__(self, dataset: Any, also: Mapping[str, Any]) -> None:
        self.dataset = dataset
        self.also = {f"its {name}": its for name, its in also.items()}
        self.own: frozenset[str] = frozenset()
        self._parts = self._all()
        self._quick = self._look()

    def __getstate__(self) -> dict[str, Any]:
        return {name: its for name, its in vars(self).items() if name != "_quick"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._quick = self._look()

    def of(self, dataset: Any) -> Inputs:
        """The same for a copy of the dataset.

        Args:
            dataset: the copy.
        """
        made = copy.copy(self)
        made.dataset = dataset
        made._parts = made._all()
        made._quick = made._look()
        return made

    def collates(self, function: Any) -> None:
        """Notes what collates, which may have been exchanged since.

        Args:
            function: it.
        """
        self.also = {**self.also, "its collate_fn": function}

    def _all(self) -> dict[str, str]:
        """The digests of all that items come of, by name."""
        found = {name: self._digest(its) for name, its in _parts(_of(self.dataset) | self.also)}
        kind = Content()
        for each in (FORMAT, torch.__version__, sys.version_info[:2], type(self.dataset)):
            kind.add(each)
        return found | {_CODE: kind.hex()}

    @staticmethod
    def _digest(value: Any) -> str:
        try:
            return digest(value)
        except RecursionError as error:
            raise CacheError(
                "the dataset holds things within things, hundreds deep (a linked list?), and nobody can look through "
                "them for a key: keep them in lists or arrays"
            ) from error

    def written(self) -> list[str]:
        """What has changed since the key was made, as reading an item writes it: no change of it is another key.

        Nothing that is the same when it is built twice comes of what changes in between.
        """
        now = self._all()
        self.own |= _other(now, self._parts) - {_CODE}
        self._quick = self._look()
        return sorted(self.own)

    def has_been_read(self) -> None:
        """Notes what has changed since the last look, as building an item writes it."""
        quick = self._look()
        if not _alike(quick, self._quick):
            self.own |= _other(_by_name(quick), _by_name(self._quick), _alike) - {""}
            self._quick = self._look()

    def key(self) -> str:
        """The key, as 32 characters."""
        content = Content()
        for name, found in sorted(self._parts.items()):
            content.add(f"{name} {found}", files=False)
        return content.hex()

    def changed(self) -> list[str]:
        """What has changed since the last look, by name: attributes of the dataset that items come of."""
        quick = self._look()
        if _alike(quick, self._quick):
            return []
        self._quick = quick
        now = self._all()
        changed = _other(now, self._parts) - self.own
        if changed:
            # What reading writes stays as it was at first, so that what goes back to a state finds its items.
            self._parts = now | {name: digest for name, digest in self._parts.items() if name in self.own}
        return sorted(changed)

    def _look(self) -> Quick:
        return _quick({"": self.dataset} | self.also, self.own)


def _other(
    one: dict[str, Any], other: dict[str, Any], alike: Callable[[Any, Any], bool] = operator.eq
) -> frozenset[str]:
    names = one.keys() | other.keys()
    return frozenset(n for n in names if n not in one or n not in other or not alike(one[n], other[n]))


def _of(dataset: Any) -> dict[str, Any]:
    if type(dataset).__module__ == "builtins":
        return {"entries": dataset}
    return {name or "entries": its for name, its in attributes(dataset).items()}


def _parts(things: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each thing by its name, and objects by what is in them: what reading writes to hides nothing beside it."""
    waiting = deque((name, value, 1) for name, value in things.items())
    seen: dict[int, int] = {}
    while waiting:
        name, value, deep = waiting.popleft()
        if deep > _DEEP or not _splits(value):
            yield name, value
        elif id(value) in seen:
            yield name, ("again", seen[id(value)])
        else:
            seen[id(value)] = len(seen)
            contained = isinstance(value, _SIZED)
            yield name, type(value)
            inner = enumerate(value) if contained else attributes(value).items()
            waiting.extend((_within(name, contained, each), its, deep + 1) for each, its in inner)


def _within(name: str, contained: bool, inner: Any) -> str:
    return f"{name}[{inner}]" if contained else f"{name}.{inner}"


def _splits(value: Any) -> bool:
    """Whether it is known by what is in it: an object that is its attributes and nothing else, or a few in a list."""
    kind: Any = type(value)
    if kind in (list, tuple):
        kinds: Any = map(type, value)
        return 0 < len(value) <= _FEW and all(map(_is_open, kinds))
    return _is_open(kind)


@lru_cache(_MOST)
def _is_open(kind: Any) -> bool:
    """Whether objects of a class are no more than that and their attributes, to pickle too."""
    closed = (*_CLOSED, *_SIZED, Mapping, partial, MethodType, torch.Tensor, torch.nn.Module)
    return (
        getattr(kind, "__dictoffset__", 0) != 0
        and not issubclass(kind, closed)
        and all(
            getattr(kind, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__", "__getstate__")
        )
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
    )


def _quick(roots: Mapping[str, Any], own: frozenset[str]) -> Quick:
    """What can be told of values without a look at all of them, by the name of the attribute that they are in.

    What is near is looked at before what is deep within, up to a number. What it is made of is held, so that none
    takes its place in memory.

    Args:
        roots: the dataset, by an empty name, and what else takes part.
        own: names that are left out.
    """
    found: Quick = []
    # A name, what it is of, and how many names it is made of; 0 where none is added.
    waiting = deque((name, value, 1 if name else 0) for name, value in roots.items() if name not in own)
    seen: set[int] = set()
    while waiting and len(found) < _MOST:
        place, value, deep = waiting.popleft()
        if isinstance(value, torch.Tensor):
            found.append((place, value, None if value.is_inference() else value._version))
            continue
        sized = isinstance(value, _SIZED)
        found.append((place, value, len(value) if sized else None))
        if isinstance(value, _CLOSED) or id(value) in seen:
            continue
        seen.add(id(value))
        if not sized:
            inner: Iterable[tuple[Any, Any]] = _inner(value)
            for kind in type(value).__mro__:
                if id(kind) not in seen and kind.__module__.partition(".")[0] not in _MADE_ONCE:
                    seen.add(id(kind))
                    found += _of_class(place, kind, own)
        elif len(value) <= _FEW:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
        else:
            continue
        deeper = 1 if not place else deep + 1 if 0 < deep <= _DEEP and _splits(value) else 0
        for each, its in inner:
            name = (_within(place, sized, each) if place else each) if deeper else place
            if name in own:
                continue
            if type(its) in _PLAIN:
                found.append((name, its, None))
            else:
                waiting.append((name, its, deeper))
    return found


def _inner(value: Any) -> Iterable[tuple[str, Any]]:
    """What an object is made of, as far as somebody could set it, by name."""
    kind: Any = type(value)
    if kind is partial:
        return ("func", value.func), ("args", value.args), ("keywords", value.keywords)
    if kind is MethodType:
        return (("__self__", value.__self__),)
    try:
        inner = list(object.__getattribute__(value, "__dict__").items())
    except AttributeError:
        inner = []
    if isinstance(value, torch.nn.Module):
        held = (each for of in ("_parameters", "_buffers", "_modules") for each in getattr(value, of).items())
        if kind.__module__.partition(".")[0] == "torch":
            return [("training", value.training), *held]
        return [*((name, its) for name, its in inner if name not in _OF_MODULES), *held]
    return inner + [(name, getattr(value, name)) for name in _slots(kind) if hasattr(value, name)]


@lru_cache(_MOST)
def _slots(kind: type) -> tuple[str, ...]:
    """The slots of a class, but not those of Python's own, which fill some in when they are asked for something."""
    owners = (each for each in kind.__mro__ if each.__module__.partition(".")[0] not in sys.stdlib_module_names)
    named = (vars(each).get("__slots__", ()) for each in owners)
    return tuple(n for names in named for n in ((names,) if isinstance(names, str) else names) if n[:2] != "__")


def _of_class(place: str, kind: type, own: frozenset[str]) -> Quick:
    """What a class holds for all its objects, by which they may be read otherwise when it is exchanged."""
    held = [(place or f"{_CODE}.{name}", its) for name, its in list(vars(kind).items()) if name[:2] != "__"]
    return [(name, its, None) for name, its in held if name not in own][:_EACH]


def _by_name(quick: Quick) -> dict[str, Quick]:
    found: dict[str, Quick] = {}
    for each in quick:
        found.setdefault(each[0], []).append(each)
    return found


def _alike(one: Quick, other: Quick) -> bool:
    return len(one) == len(other) and all(
        a == b
        and extra == more
        and (left is right or (type(left) is type(right) and type(left) in _PLAIN and left == right))
        for (a, left, extra), (b, right, more) in zip(one, other, strict=True)
    )
