"""Running a function in this process, again and again from the same state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from torchturbo._active import Active
from torchturbo._replay.clock import clocked, uncollected
from torchturbo._replay.kept import Keeper
from torchturbo._replay.memory import peak
from torchturbo._replay.record import Record, Recorder
from torchturbo._replay.search import Search
from torchturbo._replay.settings import Settings, around
from torchturbo._replay.streams import global_streams
from torchturbo._replay.watch import Watch, watching
from torchturbo._together import agreed, largest, on_all
from torchturbo._turbo import in_force
from torchturbo.errors import ReproducibilityError, TargetError
from torchturbo.regions._here import thread

Looked = TypeVar("Looked")
_TOLD = 5
"""Things that were not compared, that are named one by one."""


class Here:
    """A function, and the state that it begins with. Making one keeps what the function reaches as it is now.

    Args:
        function: what to run.
        args: what it is called with.
        kwargs: what it is called with by name.
        modules: those that it uses, where they cannot be found.
        optimizers: likewise.

    Raises:
        TargetError: a block with `accumulate=` is open, whose micro-batches nobody could put back.

    Attributes:
        keeper: keeps what it reaches.
        search: has found that.
        runs: how often it has run while it was watched.
        calls: how often it has run.
        unseen: what could not be looked into in the last such run.
    """

    fresh = False

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        modules: Iterable[nn.Module] = (),
        optimizers: Iterable[Optimizer] = (),
    ) -> None:
        _refuse_waiting()
        given, by_name = list(args), dict(kwargs or {})
        self._function: Callable[[], Any] = lambda: function(*given, **by_name)
        self.keeper = Keeper()
        for stream in global_streams():
            self.keeper.stream(stream)
        self.search = Search(self.keeper)
        for number, each in enumerate((*modules, *optimizers)):
            self.search.of(type(each).__name__ + (f"#{number + 1}" if number else ""), each)
        self.search.of(getattr(function, "__name__", "function"), function)
        self.search.of("args", given)
        for name, value in (kwargs or {}).items():
            self.search.of(name, value, partial(by_name.__setitem__, name))
        for active in in_force():
            self.search.of("scaler", active.scaler)
        self.search.settle()
        self.runs = 0
        self.calls = 0
        self.unseen: list[str] = []

    def _run(self) -> Any:
        self.calls += 1
        try:
            return self._function()
        except Exception as error:
            if self.search.iterators and self.calls > 1:
                error.add_note(f"torchturbo: {self.moves_on()}")
            raise

    def _and_back(
        self, act: Callable[[], Looked], settle: Callable[[Sequence[Looked]], Looked] | None = None
    ) -> Looked:
        """Does something from the state that is kept, and puts everything back, also where an interrupt comes.

        Ranks that measure together begin it at the same time, and where it raises on one it raises on all.

        Args:
            act: what to do.
            settle: of what it returns on each rank, what counts; each keeps its own without it.
        """

        def from_here() -> Looked:
            try:
                self.keeper.begin()
                agreed(None)
                return act()
            finally:
                try:
                    self.keeper.put_back()
                except Exception:
                    raise
                except BaseException:
                    self.keeper.put_back()  # an interrupt came halfway: it is begun again before that comes out
                    raise

        return on_all(from_here, settle)

    def record(self, settings: Settings, note: str = "", begin: Mapping[str, str] | None = None) -> Record:
        """Runs it once, and puts everything back.

        Args:
            settings: what it runs under.
            note: on an exception that it raises.
            begin: where the random streams stood at the beginning, if that was earlier than now.
        """
        return self.watched(around(settings), note, begin)

    def watched(
        self, block: AbstractContextManager[Any], note: str = "", begin: Mapping[str, str] | None = None
    ) -> Record:
        """Runs it once in a block, and puts everything back.

        Args:
            block: what it runs in.
            note: on an exception that it raises.
            begin: where the random streams stood at the beginning, if that was earlier than now.
        """
        self.runs += 1
        self.search.forget()
        recorder = Recorder(list(self.keeper.streams()), begin)
        watch = Watch(self.keeper, self.search, recorder)

        def act() -> None:
            with watching(watch):
                with block:
                    returned = self._run()
                refuse_what_has_not_run(returned)
                watch.end(returned)

        try:
            self._and_back(act)
        except SystemExit as error:
            raise ReproducibilityError(
                f"the function ended by sys.exit({'' if error.code is None else repr(error.code)}), so that there is "
                "nothing to compare: let it return what it has made, and leave sys.exit() to the code that calls it"
            ) from error
        except Exception as error:
            if note:
                error.add_note(f"torchturbo: {note}")
            raise
        self.unseen = recorder.record.unseen
        return recorder.record

    def find(self, block: AbstractContextManager[Any]) -> Record:
        """Runs it once, puts everything back, and keeps from here on what it has met, wherever that comes from.

        Args:
            block: what it runs in.
        """
        record = self.watched(block)
        self.search.settle()
        return record

    def seconds(self, block: AbstractContextManager[Any], times: int = 1) -> float:
        """Runs it in a block, unwatched, puts everything back, and returns what it took: by the GPU's clock, if any.

        Of ranks that measure together it is what the slowest took.

        Args:
            block: what it runs in.
            times: how often in succession.
        """

        def act() -> float:
            # What a block takes to enter, a loop takes once; optimizer steps that wait are part of the work.
            with block as entered, uncollected(), clocked() as elapsed:
                for _ in range(times):
                    self._run()
                if isinstance(entered, Active):
                    entered.flush()
            return elapsed()

        return self._and_back(act, largest)

    def afterwards(self, block: AbstractContextManager[Any], times: int, look: Callable[[], Looked]) -> Looked:
        """Runs it in a block, looks at something as soon as that is done, and puts everything back.

        Args:
            block: what it runs in.
            times: how often in succession.
            look: what to look at; what it returns is returned.
        """

        def act() -> Looked:
            with block:
                for _ in range(times):
                    self._run()
                return look()

        return self._and_back(act)

    def whatever(self, act: Callable[[Callable[[], Any]], Looked]) -> Looked:
        """Does something that calls the function, unwatched, puts everything back, and returns what came of it.

        Args:
            act: what to do; it is given the function.
        """
        return self._and_back(lambda: act(self._run))

    def memory(self, block: AbstractContextManager[Any]) -> int:
        """Runs it twice in a block, puts everything back, and returns the bytes of tensors at the second's peak.

        Of ranks that measure together it is what takes most.

        Args:
            block: what it runs in.

        Raises:
            RuntimeError: somebody else is profiling in this thread.
        """

        def act() -> int:
            with block:
                return peak(self._run, self.keeper, self.search)

        return self._and_back(act, largest)

    def notes(self) -> list[str]:
        """What could not be put back or compared, as sentences."""
        more = len(self.unseen) - _TOLD
        return [
            *(f"{what} cannot be looked into, and was not compared" for what in self.unseen[:_TOLD]),
            *([f"{more} more such things were not compared"] if more > 0 else []),
            *self._lost(),
        ]

    def moves_on(self) -> str:
        """A sentence about iterators that the function reaches and that nobody can put back."""
        its = " and ".join(self.search.iterators)
        return (
            f"{its} moves on with each run and cannot be put back; what {self.calls} runs take has been taken: take "
            "the batch before and give it with args=(batch,), or make the iterator in the function"
        )

    def _lost(self) -> list[str]:
        return [
            f"{self.search.name(tensor)} was written to and is too large to have been copied, so that it is not as it "
            "was: give the function a copy"
            for tensor in self.keeper.lost
        ]


def _refuse_waiting() -> None:
    its = thread.here.accumulating
    if its is not None and its.every > 1:
        raise TargetError(
            f"a block with accumulate={its.every} is open here: each run would be a micro-batch of it, and gradients "
            "that wait in it could not be put back. Call this outside of the block; give accumulate= to benchmark"
        )


def refuse_what_has_not_run(returned: Any) -> None:
    """Raises where a call has only made what would run later.

    Args:
        returned: by the call.

    Raises:
        TargetError: it is a generator or a coroutine; says what to check.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that nobody has awaited it
    elif not (inspect.isgenerator(returned) or inspect.isasyncgen(returned)):
        return
    raise TargetError(
        f"{returned.__qualname__} has not run: what was called returned a {type(returned).__name__}. Check a function "
        "that runs it to its end, as lambda: asyncio.run(...) or lambda: list(...) do"
    )
