"""What ranks that measure together decide: one value for all of them, through the store in which they find each other.

The step of a rank waits in its collectives until all ranks have come to them. So what decides whether there is another
step, be it a clock, a verdict or an exception, has to come to the same on all: each tells rank 0 what it has, and rank
0 tells all what counts. Where no other rank exists, nobody is asked.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from torchturbo import _ranks
from torchturbo.errors import RanksError, in_a_line
from torchturbo.hardware import Place, place
from torchturbo.hardware import _ranks as processes

T = TypeVar("T")
TO_BEGIN = timedelta(minutes=1)
"""How long the first rank that begins to measure waits for the others."""
MEANWHILE = timedelta(minutes=30)
"""How long one waits for the run of another one, which may have to be compiled there: as long as torch's groups do."""
AFTER_AN_ERROR = timedelta(seconds=30)
"""How long one waits whose own run has raised: others that do not raise may wait for it in a collective, for ever."""


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class OnAnotherRank(RanksError):
    """What was to be done by all has raised on another rank."""


class _EndsOnAnotherRank(OnAnotherRank, StopIteration):
    """There, it was the end of what it iterates."""


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a rank tells in place of a value.

    Attributes:
        told: what it has raised, as a sentence.
        ends: whether that was a StopIteration.
        left: whether it does not go on.
    """

    told: str
    ends: bool = False
    left: bool = False


def of_rank_0(values: Sequence[T]) -> T:
    """The first of the values that the ranks have."""
    return values[0]


def largest(values: Sequence[T]) -> T:
    """The largest of the values that the ranks have; None where one has none."""
    return max(values, key=lambda its: (its is None, its))


def agreed(mine: T, settle: Callable[[Sequence[T]], T] = of_rank_0) -> T:
    """What counts on all ranks that measure together. Each comes here as often as the others.

    Args:
        mine: what this one has; what counts, where it is alone.
        settle: of the values of all, in their order, the one that counts.

    Raises:
        RanksError: another rank has raised, left or not come.
    """
    if _crew is None:
        return mine
    counts: T = _crew.exchange(mine, settle, MEANWHILE)
    return counts


def on_all(act: Callable[[], T], settle: Callable[[Sequence[T]], T] | None = None) -> T:
    """Does what every rank does now, and raises on all of them where it raises on one.

    Args:
        act: what to do.
        settle: of what it returns to each, the one that counts; each keeps its own without it.

    Raises:
        RanksError: it has raised on another rank.
    """
    crew = _crew
    if crew is None:
        return act()
    try:
        mine = act()
    except OnAnotherRank:
        raise  # all know of it
    except (Exception, SystemExit) as error:
        crew.raised(error)
        raise
    if settle is not None:
        return agreed(mine, settle)
    agreed(None)
    return mine


def alike(what: str, mine: object) -> None:
    """Raises on all ranks where one has another value than rank 0.

    Args:
        what: what it is, in the message.
        mine: this one's, which is compared as text.

    Raises:
        RanksError: says which rank has what.
    """
    if _crew is None:
        return
    # Where an object is in memory is no difference.
    other: Any = _crew.exchange(_ADDRESS.sub("", repr(mine)), _first_other, MEANWHILE)
    if other is not None:
        rank, its, first = other
        raise RanksError(f"{what} is {its} on rank {rank}, and {first} on rank 0: let it be the same on all ranks")


def _first_other(values: Sequence[Any]) -> Any:
    return next(((rank, its, values[0]) for rank, its in enumerate(values) if its != values[0]), None)


def several() -> bool:
    """Whether other ranks measure along with this one."""
    return _crew is not None


def leads() -> bool:
    """Whether this is the rank that writes files; the only one, where it is alone."""
    return _crew is None or not _crew.place.rank


def told(text: str) -> list[str]:
    """A note for what was measured on several ranks; none where there is one.

    Args:
        text: what stands for what.
    """
    return [] if _crew is None else [f"measured on {_crew.place.size} ranks at once: {text}"]


@contextmanager
def together(what: str, **asked: object) -> Iterator[None]:
    """A block that all ranks enter, each of which then does the same; in one process nothing but a block.

    Args:
        what: the function that users call, for messages.
        **asked: what it is asked for, which has to be the same on all.

    Raises:
        RanksError: another rank has not come, or is asked for something else.
    """
    global _crew
    store = processes.store()
    if store is None:
        yield
        return
    crew = _Crew(store, place(), what)
    crew.meet()
    before, _crew = _crew, crew
    try:
        _ranks.agree_by(store)
        alike(f"what {what}() is asked for", asked)
        yield
    except BaseException as error:
        crew.leave(error)
        raise
    finally:
        _crew = before


class _Crew:
    """The ranks that measure together, from one of them.

    Args:
        store: where they find each other.
        place: which one this is.
        what: they do, for messages.
    """

    def __init__(self, store: Any, place: Place, what: str) -> None:
        self.place = place
        self._what = what
        self._store = _ranks.distributed.PrefixStore(f"torchturbo/together/{_met}", store)
        self._number = 0
        self._over: str | None = None

    def meet(self) -> None:
        """Waits for the others."""
        global _met
        self.exchange(None, of_rank_0, TO_BEGIN)
        _met += 1

    def exchange(self, mine: Any, settle: Callable[[Sequence[Any]], Any], patience: timedelta) -> Any:
        """Tells rank 0 what this one has, and returns what rank 0 says that counts.

        Args:
            mine: what this one has.
            settle: of all of them, what counts; rank 0 asks it.
            patience: how long it waits for the others.

        Raises:
            RanksError: one has raised, left or not come.
        """
        if self._over is not None:
            raise OnAnotherRank(self._over)
        answer = self._settled(mine, settle, patience) if self.place.rank == 0 else self._asked(mine, patience)
        if not isinstance(answer, _Raised):
            return answer
        if answer.left:
            self._over = answer.told
        elif isinstance(mine, _Raised):
            return None
        raise (_EndsOnAnotherRank if answer.ends else OnAnotherRank)(answer.told)

    def _settled(self, mine: Any, settle: Callable[[Sequence[Any]], Any], patience: timedelta) -> Any:
        """Rank 0: hears all, and tells them."""
        number = self._number
        others = {rank: f"{number}/{rank}" for rank in range(1, self.place.size)}
        self._wait(number, others, patience)
        values = [mine, *(pickle.loads(self._store.get(key)) for key in others.values())]
        answer = next((each for each in values if isinstance(each, _Raised)), None) or settle(values)
        self._store.set(str(number), pickle.dumps(answer))
        self._number += 1
        if number:
            self._store.delete_key(str(number - 1))  # which all have read that have come here
        return answer

    def _asked(self, mine: Any, patience: timedelta) -> Any:
        """Another rank: tells rank 0, and hears it."""
        number, own = self._number, f"{self._number}/{self.place.rank}"
        self._store.set(own, pickle.dumps(mine))
        self._number += 1
        self._wait(number, {0: str(number)}, patience)
        self._store.delete_key(own)
        return pickle.loads(self._store.get(str(number)))

    def _wait(self, number: int, keys: dict[int, str], patience: timedelta) -> None:
        try:
            self._store.wait(list(keys.values()), patience)
        except RuntimeError:  # a FileStore has no error of torch.distributed's for it
            missing = [rank for rank, key in keys.items() if not self._store.check([key])]
            told = (
                f"{_ranks.named(missing)} has not come to where rank {self.place.rank} is in {self._what}() within "
                f"{patience.total_seconds():g} seconds. The steps of ranks wait for each other: call {self._what}() on "
                "every rank, with a step that does the same on all; or in one process, started without torchrun"
            )
            self._part(number, told)
            raise OnAnotherRank(told) from None

    def _part(self, number: int, told: str) -> None:
        """Goes on without the others, and leaves them word where they look next."""
        self._over = told
        key = f"{number}/{self.place.rank}" if self.place.rank else str(number)
        with suppress(RuntimeError):
            self._store.set(key, pickle.dumps(_Raised(told, left=True)))

    def raised(self, error: BaseException) -> None:
        """Tells the others what has been raised here; that they do not hear it is noted on it.

        Args:
            error: what was raised.
        """
        mine = _Raised(self._of(error), isinstance(error, StopIteration))
        try:
            self.exchange(mine, of_rank_0, AFTER_AN_ERROR)
        except OnAnotherRank as other:
            error.add_note(f"torchturbo: {other}")
            if self._over is not None:
                self._over = f"{mine.told}. {self._over}"

    def leave(self, error: BaseException) -> None:
        """Tells the others that this one does not go on.

        Args:
            error: why.
        """
        if self._over is None:
            why = str(error) if isinstance(error, OnAnotherRank) else self._of(error)
            self._part(self._number, f"{why}, and rank {self.place.rank} has left {self._what}()")

    def _of(self, error: BaseException) -> str:
        return f"rank {self.place.rank} has raised {in_a_line(error)}"


_crew: _Crew | None = None
_met = 0
"""How often ranks have met: each time has names of its own in the store."""
