"""The model of law 3: what must be in force after any sequence of events, worked out from their list and nothing else.

Each cell has a base and a list of what was done to it since, oldest first: layers' edits and somebody else's writes.
What is in force is the base with all that is in the list done to it in order. A layer that leaves is struck out.
Two rules say what becomes of somebody else's write:

* written over the newest layer of its cell it goes when that layer leaves (the block puts back what it found) or has to
  be put in force anew, because what it stands on changed;
* written beneath a layer it was found by that layer, belongs to what is beneath, and stays.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torchturbo.settings._edits import Edit, Raw


@dataclass
class Timeline:
    """One cell's history: `items` are (layer, edit), where a layer of None is somebody else's write."""

    base: Raw
    items: list[tuple[Hashable | None, Edit]] = field(default_factory=list)

    def in_force(self) -> Raw:
        """What must be read now."""
        return self._through(len(self.items))

    def opened(self, layer: Hashable, edit: Edit) -> None:
        """A layer was put over all that is there."""
        self.items.append((layer, edit))

    def foreign(self, edit: Edit) -> None:
        """Somebody else wrote."""
        self.items.append((None, edit))

    def closed(self, layer: Hashable) -> None:
        """A layer left, from wherever it stood; nothing happens if it never asked anything of this cell."""
        place = next((at for at, (its, _) in enumerate(self.items) if its == layer), None)
        if place is None:
            return
        if self._newest() == place:
            del self.items[place:]
            return
        before = self._through(self._newest() + 1)
        del self.items[place]
        if self._through(self._newest() + 1) != before:
            del self.items[self._newest() + 1 :]

    def _newest(self) -> int:
        return max(at for at, (layer, _) in enumerate(self.items) if layer is not None)

    def _through(self, count: int) -> Raw:
        value = self.base
        for _, edit in self.items[:count]:
            value = edit(value)
        return value
