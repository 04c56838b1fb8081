"""One thing of torch's global state that can be left changed, and what is said of it if it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Raw = Any


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was left changed.

    Attributes:
        name: what `allow` calls it: the option, or the environment variable, or the like.
        torch: what torch's users write to set it.
        was: its value before, in words.
        now: its value after, in words.
        advice: what to write instead.
        kept: why it could not be put back, or None if it is as it was.
        known_as: every name that allows it.
    """

    name: str
    torch: str
    was: str
    now: str
    advice: str
    kept: str | None
    known_as: frozenset[str]


def _by_itself(was: Raw, now: Raw) -> str:
    return "set it in a fixture that puts it back"


def equal(was: Raw, now: Raw) -> bool:
    """Whether two raw states are one, also where they hold what cannot be compared."""
    try:
        return bool(was == now)
    except Exception:
        return was is now


def said(advice: str) -> Callable[[Raw, Raw], str]:
    """Advice that is the same for every state."""
    return lambda was, now: advice


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One thing that is watched.

    Attributes:
        name: what it is called in messages and where it is allowed.
        torch: what torch's users write to set it.
        read: its state now; it changes nothing, starts nothing and imports nothing.
        write: ``write(was, now)`` puts `was` back, or None where nobody can.
        show: the state in words.
        same: whether two states are one.
        advice: from the states before and after to what to write instead; of many things, from the name and the state.
    """

    name: str
    torch: str
    read: Callable[[], Raw]
    write: Callable[[Raw, Raw], object] | None
    show: Callable[[Raw], str] = repr
    same: Callable[[Raw, Raw], bool] = equal
    advice: Callable[[Raw, Raw], str] = _by_itself

    @property
    def names(self) -> frozenset[str]:
        """What it can be called where it is allowed."""
        return frozenset((self.name, self.torch))

    def changes(self, was: Raw, *, put_back: bool) -> Iterator[Change]:
        """Says what is not as it was.

        Args:
            was: what it has read.
            put_back: whether to put it back, as far as that can be done.
        """
        now = self.read()
        if self.same(was, now):
            return
        kept = self._put_back(was, now) if put_back else None
        yield Change(self.name, self.torch, *self.told(was, now), self.advice(was, now), kept, self.names)

    def told(self, was: Raw, now: Raw) -> tuple[str, str]:
        """Both states in words; of states that have parts by name, those that differ."""
        before, after = _parts(was), _parts(now)
        if before is None or after is None or before.keys() != after.keys():
            return self.show(was), self.show(now)
        differ = [name for name in before if not equal(before[name], after[name])]
        one, other = (f"({', '.join(f'{name} {parts[name]}' for name in differ)})" for parts in (before, after))
        return one, other

    def _put_back(self, was: Raw, now: Raw) -> str | None:
        if self.write is None:
            return "torch has no way to put it back"
        try:
            self.write(was, now)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None if self.same(was, self.read()) else "torch does not take it back"


def _parts(raw: Raw) -> dict[str, Raw] | None:
    """The parts of a state by name, or None where it has none."""
    if isinstance(raw, dict):
        return raw
    return raw._asdict() if hasattr(raw, "_asdict") else None


class Things(Thing):
    """Many things of one kind, read at once as a mapping: each is named by itself, and what it is called allows it.

    What is not in the mapping is not set.
    """

    __slots__ = ()

    def changes(self, was: Mapping[str, Raw], *, put_back: bool) -> Iterator[Change]:
        """Says what is not as it was.

        Args:
            was: what it has read.
            put_back: whether to put it back, as far as that can be done.
        """
        now = self.read()
        for name in sorted(was.keys() | now.keys()):
            before, after = was.get(name, _NOT_SET), now.get(name, _NOT_SET)
            if equal(before, after):
                continue
            kept = self._put_one_back(name, before) if put_back else None
            told = [("not set" if raw is _NOT_SET else self.show(raw)) for raw in (before, after)]
            torch = self.torch.format(name)
            advice = self.advice(name, after)
            yield Change(name, torch, told[0], told[1], advice, kept, frozenset((self.name, name, torch)))

    def _put_one_back(self, name: str, was: Raw) -> str | None:
        assert self.write is not None
        try:
            self.write(name, None if was is _NOT_SET else (was,))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None if equal(was, self.read().get(name, _NOT_SET)) else "it does not come back"


_NOT_SET = object()
