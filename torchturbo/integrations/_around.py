"""A block around what another library runs: what the library does itself is left to it, and the report says so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torchturbo._active import Active, Site
from torchturbo._program import Left
from torchturbo._report import Report
from torchturbo._sources import UNNAMED
from torchturbo._turbo import _enter, turbo
from torchturbo.errors import TargetError
from torchturbo.profiles import Profile
from torchturbo.regions._here import Factors

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

Instead = Mapping[str, tuple[object, str]]
"""Options that cannot be had beside a library: the value that asks for nothing, and what to write instead."""


def left(*, autocast: str | None = None, accumulate: str | None = None) -> Left:
    """What is left to a library.

    Args:
        autocast: who enters autocast, and scales gradients if they have to be; None where nobody does.
        accumulate: who has steps wait for micro-batches, or could and we cannot; None where nobody does.
    """
    # Who enters autocast also scales: these say how scaling is done.
    scaling = () if autocast is None else tuple((name, autocast) for name in ("autocast", *Factors._fields))
    return (*scaling, *(() if accumulate is None else (("accumulate", accumulate),)))


def expect(thing: object, kinds: type | tuple[type, ...], asked: str) -> None:
    """Refuses what is not of a library's class.

    Args:
        thing: what was given.
        kinds: the class, or all that it may be.
        asked: who takes what, as a sentence: "attach takes an ignite.engine.Engine".

    Raises:
        TargetError: it is of another class.
    """
    if not isinstance(thing, kinds):
        raise TargetError(f"{asked}, and got {type(thing).__name__}")


class Beside(turbo):
    """A `turbo` of which some options are left to somebody else.

    Args:
        profile: as `turbo` takes it.
        left_to: those options, and who sees to them.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.
    """

    __slots__ = ("_left_to",)

    def __init__(self, profile: str | Profile, left_to: Left, *, strict: bool = False, **options: Any) -> None:
        super().__init__(profile, strict=strict, **options)
        self._left_to = left_to

    def __reduce__(self) -> tuple[object, ...]:
        return _beside, (self._profile, self._left_to, self._strict, self._overrides)


def _beside(profile: Profile, left_to: Left, strict: bool, overrides: tuple[tuple[str, Any], ...]) -> Beside:
    return Beside(profile, left_to, strict=strict, **dict(overrides))


class Around:
    """The blocks of one profile around the runs of a library.

    Args:
        libraries: the packages of the library, which no user's code is in.
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        options: as `turbo` takes them.
        instead: of options that cannot be had beside the library.

    Attributes:
        asked: the profile, `strict` and the options.
        active: the block that is open, or None.

    Raises:
        TargetError: an option cannot be had beside the library; and all that `turbo` raises.
    """

    def __init__(
        self,
        libraries: tuple[str, ...],
        profile: str | Profile,
        strict: bool,
        options: Mapping[str, Any],
        instead: Instead,
    ) -> None:
        for name, (nothing, write) in instead.items():
            if options.get(name, nothing) != nothing:
                raise TargetError(f"{name}={options[name]!r} cannot be had beside {libraries[0]}: write {write}")
        self._libraries = libraries
        self.asked: tuple[str | Profile, bool, dict[str, Any]] = profile, strict, dict(options)
        # What is scaled so far, and the like, lives with it: one is made anew only where something else is left.
        self._turbo = Beside(profile, (), strict=strict, **options)
        self._loaded: Mapping[str, Any] | None = None
        self.active: Active | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "active": None}

    def open(self, left_to: Left) -> None:
        """Opens a block.

        Args:
            left_to: what is left to the library.

        Raises:
            UnsupportedHere: `strict`, and this machine cannot do something that was asked.
        """
        if self.active is not None:
            # A run ended and nobody said so.
            self.close(RuntimeError("the run before was left"))
        if self._turbo._left_to != left_to:
            profile, strict, options = self.asked
            self._turbo = Beside(profile, left_to, strict=strict, **options)
        self._put_loaded()
        self.active = _enter(self._turbo, self._site())

    def close(self, error: BaseException | None = None) -> None:
        """Closes the block that is open, if there is one.

        Args:
            error: what ended the run, or None.
        """
        if self.active is not None:
            self.active = None
            self._turbo.__exit__(None if error is None else type(error), error, None)

    def state_dict(self) -> dict[str, Any]:
        """The scale of gradients, or nothing where nothing is scaled."""
        scaler = self._turbo.scaler
        return {} if scaler is None else {"scaler": scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a scale; with the next block, where none is open.

        Args:
            state_dict: what `state_dict` has returned.
        """
        self._loaded = state_dict.get("scaler")
        if self.active is not None:
            self._put_loaded()

    def _put_loaded(self) -> None:
        if self._loaded is not None and (scaler := self._turbo.scaler) is not None:
            scaler.load_state_dict(self._loaded)
        self._loaded = None

    @contextmanager
    def block(self, left_to: Left) -> Iterator[None]:
        """A block around a run.

        Args:
            left_to: what is left to the library.
        """
        if self.active is not None:
            yield
            return
        self.open(left_to)
        try:
            yield
        except BaseException as error:
            self.close(error)
            raise
        self.close()

    def _site(self) -> Site:
        """The line of the user's that runs the library."""
        inside = ("torchturbo", "contextlib", "threading", *self._libraries)
        frame = sys._getframe(1)
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] in inside:
            frame = frame.f_back
        return 0, frame.f_code, frame.f_lasti


class Blocks:
    """What a library is given, to have blocks around its runs: a callback, or what is attached to it.

    Args:
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.

    Raises:
        TargetError: an option cannot be had beside the library; and all that `turbo` raises.
    """

    _libraries: ClassVar[tuple[str, ...]]
    """Its packages, the first by the name that people know."""
    _instead: ClassVar[Instead] = {}

    def __init__(self, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]) -> None:
        super().__init__()
        self._around = Around(self._libraries, profile, strict, options, self._instead)

    @property
    def active(self) -> Active | None:
        """The block that is open, or None outside of a run."""
        return self._around.active

    def report(self) -> Report:
        """What the open block has put in force, printed.

        Raises:
            RuntimeError: no run is under way.
        """
        if self.active is None:
            raise RuntimeError("no run is under way: ask for the report while the library trains, in a callback of it")
        return self.active.report()

    def state_dict(self) -> dict[str, Any]:
        """The scale of gradients in fp16, for a checkpoint; empty where it is the library's, or nothing is scaled.

        Lightning saves and loads it by itself, and Ignite's `Checkpoint` where it is given this.
        """
        return self._around.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from where another run's scale was.

        Args:
            state_dict: what ``state_dict()`` has returned.
        """
        self._around.load_state_dict(state_dict)


class Within:
    """A method of one object, whose every call runs in a block; it stands among the object's own attributes.

    Args:
        thing: the object. The two hold each other, and Python's collector takes them: `Trainer().train()` needs both.
        name: of the method.
        around: the blocks.
        left_to: what is left to the library, asked of the object at each call.
        once: whether the first call takes it off the object again.
    """

    def __init__(
        self, thing: Any, name: str, around: Around, left_to: Callable[[Any], Left], *, once: bool = False
    ) -> None:
        self._thing, self._name, self._around, self._left_to, self._once = thing, name, around, left_to, once
        self._beneath = vars(thing).get(name)
        vars(thing)[name] = self

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Calls the method in a block."""
        thing = self._thing
        if self._once:
            self.take_off()
        beneath = getattr(type(thing), self._name).__get__(thing) if self._beneath is None else self._beneath
        with self._around.block(self._left_to(thing)):
            return beneath(*args, **kwargs)

    def take_off(self) -> None:
        """Has the object its own method again, unless somebody has put another one on top."""
        thing = self._thing
        if vars(thing).get(self._name) is self:
            if self._beneath is None:
                del vars(thing)[self._name]
            else:
                vars(thing)[self._name] = self._beneath

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise TargetError(f"the {self._name} of an object that torchturbo is around cannot be copied: copy it before")


__all__ = ["UNNAMED", "Around", "Beside", "Blocks", "Instead", "Within", "expect", "left"]
