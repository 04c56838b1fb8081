"""What a cache has done, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchturbo._told import Told
from torchturbo._words import size, some, time

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class CacheStats(Told):
    """What a cache holds, and what it has done in this run, its workers included.

    Attributes:
        where: ``"memory"``, or the folder of these items.
        key: what the items come of, as 32 characters: another input has another one.
        items: how many are kept.
        bytes: what they take.
        max_bytes: what they may take; in a folder, together with those of other keys.
        hits: how often an item was taken from the cache.
        built: how often one was built, those that were built twice as a check included.
        unkept: how often one was built for which there was no room.
        build_seconds: how long building took, of all processes together.
        left_out: attributes of the dataset that reading it changes, and that are no part of the key.
        others: how many other keys have items in the folder.
        other_bytes: what these take.
    """

    where: str
    key: str
    items: int
    bytes: int
    max_bytes: int
    hits: int
    built: int
    unkept: int
    build_seconds: float
    left_out: tuple[str, ...]
    others: int
    other_bytes: int

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        lines = [
            f"{some(self.items, 'item')} in {self.where}, {size(self.bytes)} of at most {size(self.max_bytes)}",
            f"taken {some(self.hits, 'time')}, built {some(self.built, 'time')} in {time(self.build_seconds)}",
        ]
        if self.unkept:
            lines.append(f"no room for {self.unkept} of them, which are built each time: max_bytes={self.max_bytes}")
        if self.left_out:
            lines.append(f"reading writes to {', '.join(self.left_out)}, which items do not come of")
        if self.others:
            lines.append(
                f"{some(self.others, 'other key')} in this folder, {size(self.other_bytes)}: "
                "cache_of(...).clear_others() removes what other inputs have left"
            )
        return Text("\n".join(lines))
