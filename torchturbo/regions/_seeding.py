"""The seed in force, and what is remembered of a block that has one: how often it has gone through which loader."""

from __future__ import annotations

import warnings
from collections import Counter
from operator import attrgetter
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

from torch import Tensor

from torchturbo.errors import DeterminismWarning
from torchturbo.regions._epochs import Epoch, length
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Raw, put_in
from torchturbo.settings._variables import variable


class Position(TypedDict):
    """How far a block is with a loader.

    Attributes:
        iterations: how often it was begun.
        epoch: the number of the iteration that goes on; None where none does.
        batches: how many batches the code has had of that.
        drawn: how many its sampler has given, for workers ahead of that; None where it has come to its end.
        generator: which of the block's generators is the loader's own; None if it has none.
        began: where that stood when the iteration that goes on began.
    """

    iterations: int
    epoch: int | None
    batches: int
    drawn: int | None
    generator: int | None
    began: Tensor | None


class Positions(TypedDict):
    """How far a block is with its loaders.

    Attributes:
        loaders: those that are still there, by name.
        generators: where their own generators stand.
        names: how many names have been given to loaders that are alike.
    """

    loaders: dict[str, Position]
    generators: list[Tensor | None]
    names: dict[str, int]


class Seeding:
    """One entry of a block with a seed.

    Loaders are told apart by the class and the length of their dataset and by the class of their sampler, and those
    that are alike by which was iterated first: so one more loader in a block moves no other.

    Args:
        seed: at least 0 and less than 2**32.
        asked: the seed that was asked for, of which that is what this one of several processes starts from.
    """

    def __init__(self, seed: int, asked: int | None = None) -> None:
        self.seed = seed
        self.asked = seed if asked is None else asked
        self._names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._alike: Counter[str] = Counter()
        self._iterations: Counter[str] = Counter()
        self._epochs: dict[str, list[Epoch]] = {}
        self._resumed: dict[str, Position] = {}
        self._generators: list[Tensor | None] = []

    def epoch(self, loader: Any) -> Epoch:
        """The next iteration over a loader."""
        if loader not in self._names:
            self._names[loader] = self._name(loader)
        name = self._names[loader]
        position = self._resumed.pop(name, None)
        if position is None:
            epoch = Epoch((self.seed, name, self._iterations[name]), loader)
            self._iterations[name] += 1
        else:
            epoch = self._resume(name, position, loader)
        before = self._epochs.get(name, [])
        # The last that the code was in is kept, to be told if it was left; others while somebody goes on with them.
        last = max(before, key=attrgetter("touched"), default=None)
        self._epochs[name] = [*(each for each in before if each is last or each.alive), epoch]
        return epoch

    def _name(self, loader: Any) -> str:
        # Not by module: a script has another name as __main__ than as a module.
        # By what a dataset says it is: one that is cached is to have the order that it had.
        alike = (
            f"{loader.dataset.__class__.__qualname__}({length(loader.dataset)}), {type(loader.sampler).__qualname__}"
        )
        for name in self._resumed:
            if name.rpartition(", ")[0] == alike and name not in self._names.values():
                return name
        self._alike[alike] += 1
        return f"{alike}, {self._alike[alike] - 1}"

    def _resume(self, name: str, position: Position, loader: Any) -> Epoch:
        self._iterations[name] = position["iterations"]
        own, generator = position["generator"], loader.generator
        if own is not None and generator is not None and (stood := self._generators[own]) is not None:
            # Once for all loaders that have it.
            generator.set_state(stood)
            self._generators[own] = None
        if position["epoch"] is None:
            self._iterations[name] += 1
            return Epoch((self.seed, name, position["iterations"]), loader)
        stands = None if generator is None else generator.get_state()
        if generator is not None and position["began"] is not None:
            generator.set_state(position["began"])
        epoch = Epoch((self.seed, name, position["epoch"]), loader, position["batches"])
        epoch.goes_back(stands, position["drawn"])
        return epoch

    def positions(self) -> Positions:
        """How far the block is with each loader.

        Raises:
            RuntimeError: two loops go through one loader, of which a run that goes on could not tell which is which.
        """
        loaders, generators = dict(self._resumed), dict[int, int]()
        states: list[Tensor | None] = list(self._generators) if self._resumed else []
        alive = {name: loader for loader, name in self._names.items()}
        for name, epochs in self._epochs.items():
            going = [each for each in epochs if each.alive and not each.complete]
            newest, loader = max(epochs, key=attrgetter("touched")), alive.get(name)
            if len(going) > 1:
                raise RuntimeError(
                    f"{len(going)} loops are in the middle of one data loader, {name}: a state can be saved where "
                    "there is one, or none. Give each loop a loader of its own"
                )
            if loader is None and not going:
                continue
            if not newest.complete and not any(each.alive for each in epochs):
                _tell_of_what_was_left(name, newest)
            own = None
            if loader is not None and loader.generator is not None:
                own = generators.setdefault(id(loader.generator), len(states))
                if own == len(states):
                    states.append(None)
                if states[own] is None or newest.ends:
                    states[own] = newest.generator_afterwards(loader.generator)
            loaders[name] = Position(
                iterations=self._iterations[name],
                epoch=going[0].number if going else None,
                batches=going[0].had if going else 0,
                drawn=going[0].batch if going and not going[0].drawn else None,
                generator=own,
                began=going[0].began if going else None,
            )
        return Positions(loaders=loaders, generators=states, names=dict(self._alike))

    def resume(self, positions: Positions) -> None:
        """Has each loader go on, the next time that it is iterated.

        Args:
            positions: what `positions` has returned in another run.
        """
        self._resumed = dict(positions["loaders"])
        self._generators = list(positions["generators"])
        self._alike.update({alike: max(0, n - self._alike[alike]) for alike, n in positions["names"].items()})

    def tell_of_what_was_not_resumed(self) -> None:
        """Warns where a loader that was to go on in the middle of an epoch has never been iterated."""
        for name, position in self._resumed.items():
            if position["epoch"] is not None:
                warnings.warn(
                    f"the state that was loaded was in the middle of an epoch of a loader of {name}, and none like "
                    "it has been iterated in this block: loaders are told apart by class and length of their dataset, "
                    "by class of their sampler and the order in which those that are alike are first iterated",
                    DeterminismWarning,
                    stacklevel=2,
                )

    def __repr__(self) -> str:
        return f"<seeding {self.seed}>"


def _tell_of_what_was_left(name: str, epoch: Epoch) -> None:
    warnings.warn(
        f"the last iteration over a data loader, {name}, was left after {epoch.had} batches, and a run that goes on "
        "from this state begins the next one: save in the loop to go on in the middle of it",
        DeterminismWarning,
        stacklevel=2,
    )


class _Now:
    """What is in force, and who is to be told when that begins and ends."""

    def __init__(self) -> None:
        self.seeding: Seeding | None = None
        self.exchanges: tuple[Any, ...] = ()


now = _Now()


def _read() -> Seeding | None:
    return now.seeding


def _write(raw: Seeding | None, over: Raw) -> None:
    was, now.seeding = now.seeding, raw
    if (was is None) != (raw is None):
        for exchange in now.exchanges:
            (exchange.closed if raw is None else exchange.opened)()


SEEDING = Cell("the seed", "process", _read, _write)


def seeding_in(writes: tuple[Write, ...]) -> Seeding | None:
    """What is remembered of a block that writes these, or None where it has no seed.

    Args:
        writes: its cells and edits.
    """
    put: Seeding | None = put_in(SEEDING, writes)
    return put


HASHES = variable("PYTHONHASHSEED")
"""The order of sets of strings in processes that are started meanwhile; this one has read it when it started."""
