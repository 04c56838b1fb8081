"""What a dataset's items come of, as a key, and a quick look at whether that has changed."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
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
_DEEP = 3
_MOST = 200
_FEW = 16
_EACH = 50
"""Attributes of a class that are looked at."""
_MADE_ONCE = ("builtins", "torch", "collections", "typing", "numpy")
"""Packages whose classes nobody changes."""
Quick = list[tuple[str, Any, Any]]


class Inputs:
    """What items come of: the dataset with the code of its class, and what else takes part.

    Args:
        dataset: the dataset.
        also: what else: functions that collate, the sizes of batches.
    """

    def __init__(self, dataset: Any, also: Sequence[Any]) -> None:
        self.dataset = dataset
        self.also = tuple(also)
        self.own: frozenset[str] = frozenset()
        self._parts = self._all()
        self._quick = self._look()

    def __getstate__(self) -> dict[str, Any]:
        return {name: its for name, its in vars(self).items() if name != "_quick"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._quick = self._look()

    def _all(self) -> dict[str, str]:
        """The digests of all that items come of, by name."""
        found = {name: self._digest(its) for name, its in _of(self.dataset).items()}
        kind = Content()
        for each in (FORMAT, torch.__version__, sys.version_info[:2], type(self.dataset), *self.also):
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
        found: Quick = []
        _quick("", self.dataset, found, 0, self.own)
        return found


def _other(
    one: dict[str, Any], other: dict[str, Any], alike: Callable[[Any, Any], bool] = operator.eq
) -> frozenset[str]:
    names = one.keys() | other.keys()
    return frozenset(n for n in names if n not in one or n not in other or not alike(one[n], other[n]))


def _of(dataset: Any) -> dict[str, Any]:
    if type(dataset).__module__ == "builtins":
        return {"entries": dataset}
    return {name or "entries": its for name, its in attributes(dataset).items()}


def _quick(place: str, value: Any, found: Quick, deep: int, own: frozenset[str]) -> None:
    """What can be told of a value without a look at all of it, by the name of the dataset's attribute that it is in.

    What it is made of is held, so that none takes its place in memory.
    """
    if isinstance(value, torch.Tensor):
        found.append((place, value, None if value.is_inference() else value._version))
    elif isinstance(value, _SIZED):
        found.append((place, value, len(value)))
        if len(value) <= _FEW and deep < _DEEP:
            for its in value.values() if isinstance(value, dict) else value:
                _quick(place, its, found, deep + 1, own)
    else:
        found.append((place, value, None))
        if deep < _DEEP and not isinstance(value, _CLOSED):
            try:
                inner = object.__getattribute__(value, "__dict__")
            except AttributeError:
                return
            for name, its in list(inner.items()):
                if len(found) < _MOST and not (deep == 0 and name in own):
                    _quick(place or name, its, found, deep + 1, own)
            for kind in type(value).__mro__:
                if kind.__module__.partition(".")[0] not in _MADE_ONCE:
                    found += _of_class(place, kind, own)


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
