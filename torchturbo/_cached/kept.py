"""A cache: where items are kept by what they come of, who builds what is not there, and what it refuses."""

from __future__ import annotations

import copy
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torchturbo._cached import blob
from torchturbo._cached.data import CacheStats
from torchturbo._cached.folder import InFolder
from torchturbo._cached.inputs import Inputs
from torchturbo._cached.memory import InMemory
from torchturbo._cached.proof import MORE, Streams, difference, kept, must_be_same, same_again
from torchturbo._cached.shared import Shared
from torchturbo.errors import CacheError, CacheWarning, in_a_line
from torchturbo.settings._callers import users_frame, warn_at

_HITS, _BUILT, _UNKEPT, _MICROSECONDS = range(4)
_FIRST, _SECOND = 1_000, 2_000
"""Seeds of the streams in which samples are built; any will do that are not the same."""
PROVEN, END = "-proven", "-end"
"""Names of what is no item."""
_TOLD = {about: number for number, about in enumerate(("changed", "trust", "broken", "full"), start=4)}
Run = Callable[[Streams, bool], Iterable[tuple[str, str, Any]]]


class Kept:
    """What a cache keeps, and what it knows of it.

    Args:
        dataset: what builds the items.
        also: what else they come of, by name.
        where: ``"memory"``, or a folder.
        limit: bytes that may be taken.
        builder: what builds the items, for messages.
    """

    def __init__(
        self, dataset: Any, also: Mapping[str, Any], where: Path | None, limit: int, builder: str | None = None
    ) -> None:
        self.builder = builder or type(dataset).__name__
        self._inputs = Inputs(dataset, also)
        self._where = where
        self._limit = limit
        self._tally = Shared()
        self._begin()

    def _begin(self) -> None:
        self.key = self._inputs.key()
        if self._where is None:
            if not hasattr(self, "place"):
                self.place: InMemory | InFolder = InMemory(self._limit)
            return
        about = {"what": self.builder, "key": self.key, "made": time.strftime("%Y-%m-%d %H:%M:%S")}
        name = re.sub(r"\W+", "-", self.builder)
        self.place = InFolder(self._where, f"{name}-{self.key[:16]}", self._limit, about)

    def of(self, dataset: Any) -> Kept:
        """The same cache for a copy of the dataset.

        Args:
            dataset: the copy.
        """
        made = copy.copy(self)
        made._inputs = self._inputs.of(dataset)
        return made

    def _name(self, item: str) -> str:
        name = hashlib.blake2b(f"{self.key} {item}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"-{name[1:]}" if item.startswith((PROVEN, END)) else name

    # ----------------------------------------------------------------------------------------------------------- items

    def look(self, loader: Any = None) -> bool:
        """Whether the dataset has changed since the last time; then it has another key, and so have its items.

        Args:
            loader: whose batches it keeps, where it does.
        """
        if loader is not None:
            self._inputs.collates(loader.collate_fn)
        changed = self._inputs.changed()
        if changed:
            self._begin()
            self._tell(
                "changed",
                f"{self.builder} has changed since it was cached ({', '.join(changed)}): what it is now is kept apart "
                "from what it was, and built anew. If it changes with every epoch, cache the part of it that does not",
            )
        return bool(changed)

    def has(self, item: str) -> bool:
        """Whether an item is kept.

        Args:
            item: its name.
        """
        return self.place.has(self._name(item))

    def take(self, item: str) -> tuple[bool, Any]:
        """Whether an item is kept, and that.

        Args:
            item: its name.
        """
        name = self._name(item)
        try:
            with self.place.reading(name) as found:
                if found is None:
                    return False, None
                value = blob.decode(*found)
        except blob.NotTrusted as error:
            self._tell(
                "trust",
                f"items in {self.place.where} hold a {error}, belong to another user or may be written by others, and "
                "loading them could run code of theirs: they are built again. Use a folder of your own",
            )
            return False, None
        except Exception as error:
            self.place.drop(name)
            self._tell(
                "broken", f"an item in {self.place.where} cannot be loaded ({in_a_line(error)}), and is built again"
            )
            return False, None
        if name[0] != "-":
            self._tally.add(_HITS, 1)
        return True, value

    def build(self, item: str, what: str, build: Callable[[], Any]) -> Any:
        """Builds an item, and keeps it where there is room.

        Random numbers that it draws are put back, and it is built once more: it may not come of them.

        Args:
            item: its name.
            what: which it is, for messages.
            build: builds it.

        Raises:
            CacheError: it comes out as something else, or cannot be kept.
        """
        streams = Streams()
        value = self.timed(streams, build)
        if streams.drew:
            same_again(f"{what} of {self.builder}", value, build, _SECOND, streams.drew)
        self.keep(item, blob.encode(value))
        return value

    def timed(self, streams: Streams, build: Callable[[], Any]) -> Any:
        """What is built in some streams of random numbers, and counted.

        Args:
            streams: them.
            build: builds it.
        """
        began = time.perf_counter()
        with streams.apart():
            value = build()
        self._inputs.has_been_read()
        self._tally.add(_BUILT, 1)
        self._tally.add(_MICROSECONDS, round((time.perf_counter() - began) * 1e6))
        return value

    def keep(self, item: str, pieces: list[blob.Memory]) -> None:
        """Keeps an item if there is room.

        Args:
            item: its name.
            pieces: it, encoded.
        """
        try:
            if self.place.put(self._name(item), pieces):
                return
            why = f"max_bytes={self.place.limit} are full"
        except OSError as error:
            why = f"it cannot be written ({in_a_line(error)})"
        self._tally.add(_UNKEPT, 1)
        self._tell(
            "full",
            f"an item of {self.builder} is not kept in {self.place.where}, as {why}: what has no room is built each "
            "time",
        )

    def prove(self, run: Run, *, draws: bool = False) -> None:
        """Builds some items twice, from other random numbers and in another order, and keeps those.

        Args:
            run: builds them, in some streams and forwards or backwards, and gives the name of each, which it is for
                messages, and it.
            draws: whether it draws in any case, so that this says nothing.

        Raises:
            CacheError: one comes out as something else, or cannot be kept.
        """
        there, own = self.take(PROVEN)
        if there:  # by a run before this one
            self._inputs.own |= set(own)
            return
        streams = Streams(_FIRST)
        made = {item: (what, kept(value, f"{what} of {self.builder}")) for item, what, value in run(streams, False)}
        for more in range(1 if draws or not streams.drew else 1 + MORE):
            others, again = Streams(_SECOND + more), set()
            # One by one: a dataset may return the same memory each time.
            for item, what, value in run(others, True):
                again.add(item)
                if item in made:
                    before = blob.decode(blob.reading(blob.joined(made[item][1])))
                    drew = set() if draws else streams.drew | others.drew
                    must_be_same(f"{what} of {self.builder}", before, value, drew)
            if again != made.keys():
                raise CacheError(
                    f"{self.builder} gives {len(made)} items when it is first gone through, and {len(again)} the "
                    "second time: it can be gone through once. Let it begin anew in __iter__"
                )
        for item, (_, pieces) in made.items():
            self.keep(item, pieces)
        self.keep(PROVEN, blob.encode(self._inputs.written()))

    def same(self, what: str, value: Any, before: Any) -> None:
        """Holds an item against what is kept of it.

        Args:
            what: which it is, for messages.
            value: as it was built now.
            before: as it is kept.

        Raises:
            CacheError: they differ.
        """
        found = difference(value, before)
        if found is not None:
            raise CacheError(f"{what} of {self.builder} is not what it was when it was kept: {found}")

    # ------------------------------------------------------------------------------------------------- what users call

    def stats(self) -> CacheStats:
        """What is kept, and what has been done in this run, in all its workers."""
        hits, built, unkept, microseconds = self._tally.fields(4)
        items, taken = self.place.size()
        others = self.place.others() if isinstance(self.place, InFolder) else []
        return CacheStats(
            where=self.place.where,
            key=self.key,
            items=items,
            bytes=taken,
            max_bytes=self.place.limit,
            hits=hits,
            built=built,
            unkept=unkept,
            build_seconds=microseconds / 1e6,
            left_out=tuple(sorted(self._inputs.own)),
            others=len(others),
            other_bytes=sum(size for _, size, _ in others),
        )

    def clear_others(self, days: float = 0) -> int:
        """Removes items of other keys from the folder: those of inputs that have changed since, or of other datasets.

        Args:
            days: only those that no run has opened for so long.

        Returns:
            how many bytes that were.
        """
        return self.place.clear_others(days) if isinstance(self.place, InFolder) else 0

    def _tell(self, about: str, text: str) -> None:
        # Once for all processes, and for all epochs, for which workers are made anew.
        with self._tally.lock():
            told = self._tally.fields(8)[_TOLD[about]]
            self._tally.put(_TOLD[about], 1)
        if not told:
            warn_at(users_frame(), text, CacheWarning)
