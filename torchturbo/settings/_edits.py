"""Edits: from the raw state of a cell to the raw state wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Raw = Any
Edit = Callable[[Raw], Raw]
"""From the raw state beneath to the raw state wanted; pure, so that a layer below can leave first."""


class always:
    """The edit that puts `value` in force whatever is beneath."""

    __slots__ = ("value",)

    def __init__(self, value: Raw) -> None:
        self.value = value

    def __call__(self, beneath: Raw) -> Raw:
        return self.value


class own:
    """The edit that puts in force something of the `turbo` object's own, which all its entries share.

    Called as it is, it puts in force what is made for nobody in particular.

    Args:
        make: makes it, from what is decided about each option.
        raw: from that to raw state.
    """

    __slots__ = ("_alone", "make", "raw")

    def __init__(self, make: Callable[[Mapping[str, Any]], Any], raw: Callable[[Any], Raw]) -> None:
        self.make = make
        self.raw = raw
        self._alone: Raw = None

    def __call__(self, beneath: Raw) -> Raw:
        self._alone = self._alone or self.raw(self.make({}))
        return self._alone


class anew:
    """The edit that puts in force something that is made for each entry.

    Called as it is, it puts in force what is made for nobody in particular.

    Args:
        make: makes it.
    """

    __slots__ = ("_alone", "make")

    def __init__(self, make: Callable[[], Raw]) -> None:
        self.make = make
        self._alone: Raw = None

    def __call__(self, beneath: Raw) -> Raw:
        self._alone = self._alone or self.make()
        return self._alone


def keep(beneath: Raw) -> Raw:
    """The edit that changes nothing, for a cell that must be put back after somebody else changed it."""
    return beneath


def put_in(cell: object, writes: Iterable[tuple[object, Edit]]) -> Raw:
    """What a block that writes these puts in a cell whatever is beneath, or None.

    Args:
        cell: the cell.
        writes: the block's cells and edits.
    """
    return next((edit.value for each, edit in writes if each is cell and isinstance(edit, always)), None)
