"""Running a function in processes of its own, each as new as a script's that is started again."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing import spawn, util
from pathlib import Path
from typing import Any, NamedTuple

from torchturbo._replay.here import Here
from torchturbo._replay.record import Record
from torchturbo._replay.settings import Settings, around
from torchturbo._replay.streams import global_streams, standing
from torchturbo._replay.target import resolve
from torchturbo._reproducible.advice import HASH_SEED
from torchturbo._reproducible.data import Price
from torchturbo._reproducible.price import priced
from torchturbo.errors import ReproducibilityError, TargetError

_WITHIN = "_TORCHTURBO_CHECKS_IN_THIS_PROCESS"
_ORDER, _ANSWER, _SAID = "order.pickle", "answer.pickle", "said.txt"


class Order(NamedTuple):
    """What a process is to do.

    Attributes:
        prepare: how it becomes like the process that asks.
        function: the name of the function, or itself with its arguments, pickled.
        settings: what all of it runs under, the import of the function's module too.
        price_seconds: None to record a run; else to measure its price.
    """

    prepare: Mapping[str, Any]
    function: str | bytes
    settings: Settings
    price_seconds: float | None


class Answer(NamedTuple):
    """What came of it.

    Attributes:
        record: of the run.
        price: that was asked for, or why there is none.
        notes: what could not be put back.
        failed: the traceback of what it raised.
        wrong: what was asked for wrongly.
    """

    record: Record | None = None
    price: Price | str | None = None
    notes: tuple[str, ...] = ()
    failed: str | None = None
    wrong: str | None = None


class Fresh:
    """A function that gets a new process for each run.

    Args:
        function: what to run, or its name as `resolve` takes it.
        args: what it is called with.
        kwargs: what it is called with by name.

    Raises:
        TargetError: another process cannot find it; says what to write.
    """

    fresh = True

    def __init__(self, function: Callable[..., Any] | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if os.environ.get(_WITHIN):
            raise TargetError(
                "check_reproducible(fresh=True) was called while its own process imported the script: put the call "
                'under if __name__ == "__main__":'
            )
        self._prepare = {"sys_path": sys.path.copy(), "sys_argv": sys.argv.copy(), "dir": os.getcwd()}
        self._function = function if isinstance(function, str) else self._pickled(function, args, kwargs)
        self.notes: tuple[str, ...] = ()

    def _pickled(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        name = getattr(function, "__qualname__", repr(function))
        try:
            found = pickle.dumps((function, tuple(args), dict(kwargs)))
        except Exception as error:
            raise TargetError(
                f"fresh=True cannot hand {name} or its arguments to another process ({error}): write a function at the "
                "top of a module that makes its model and data itself, and takes no arguments; or leave out fresh=True"
            ) from error
        if b"__main__" in found:
            file = getattr(sys.modules["__main__"], "__file__", None)
            if file is None or not Path(file).is_file():
                raise TargetError(
                    f"fresh=True cannot find {name} in another process, as it was written into a notebook or a prompt: "
                    "write it into a file and import it, or leave out fresh=True"
                )
            prepare = spawn.get_preparation_data("checked")
            self._prepare.update({key: prepare[key] for key in prepare if key.startswith("init_main")})
        return found

    def record(self, settings: Settings, note: str = "") -> Record:
        """Runs it once, in a new process.

        Args:
            settings: what it runs under.
            note: on an exception that it raises.
        """
        answer = self._ask(settings, None, note)
        self.notes = answer.notes
        assert answer.record is not None
        return answer.record

    def priced(self, settings: Settings, seconds: float) -> Price | str:
        """What determinism costs, measured in a new process.

        Args:
            settings: what it runs under as it is.
            seconds: that may be spent.
        """
        try:
            price = self._ask(settings, seconds, "").price
        except ReproducibilityError as error:
            return str(error).splitlines()[0]
        assert price is not None
        return price

    def _ask(self, settings: Settings, price_seconds: float | None, note: str) -> Answer:
        settings = dict(settings)
        # As Python draws one for each process of its own accord; drawn here, two are surely different.
        drawn = str(random.SystemRandom().randrange(1, 2**32))
        seed = settings.pop(HASH_SEED, None) or os.environ.get(HASH_SEED) or drawn
        with tempfile.TemporaryDirectory(prefix="torchturbo-") as name:
            folder = Path(name)
            order = Order(self._prepare, self._function, settings, price_seconds)
            (folder / _ORDER).write_bytes(pickle.dumps(order))
            code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import run; run({name!r})"
            with (folder / _SAID).open("wb") as said:
                process = subprocess.run(
                    [sys.executable, *util._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                    env={**os.environ, HASH_SEED: seed, _WITHIN: "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            if not (folder / _ANSWER).exists():
                said_last = (folder / _SAID).read_text(encoding="utf-8", errors="replace")[-2000:]
                raise ReproducibilityError(
                    f"a fresh process ended with {process.returncode} in the middle of it:\n{said_last}"
                )
            answer: Answer = pickle.loads((folder / _ANSWER).read_bytes())
        if answer.wrong is not None:
            raise TargetError(answer.wrong)
        if answer.failed is not None:
            raise ReproducibilityError(
                f"the function raised in a fresh process{note and f' ({note})'}:\n{answer.failed}"
            )
        return answer


def run(name: str) -> None:
    """What the new process does: reads its order, carries it out, and leaves its answer.

    Args:
        name: the folder that the order is in.
    """
    folder = Path(name)
    order: Order = pickle.loads((folder / _ORDER).read_bytes())
    answer = _answer(order)
    part = folder / "part"
    part.write_bytes(pickle.dumps(answer))
    part.rename(folder / _ANSWER)


def _answer(order: Order) -> Answer:
    try:
        with ExitStack() as stack:
            if order.price_seconds is None:
                # What the module makes when it is imported is part of the run.
                stack.enter_context(around(order.settings))
            begin = standing(global_streams())
            here = _here(order)
            if order.price_seconds is None:
                return Answer(here.record({}, begin=begin), notes=tuple(here.notes()))
            return Answer(price=priced(here, order.settings, order.price_seconds))
    except TargetError as error:
        return Answer(wrong=str(error))
    except BaseException:
        return Answer(failed=traceback.format_exc())


def _here(order: Order) -> Here:
    spawn.prepare(dict(order.prepare))
    if isinstance(order.function, str):
        return Here(resolve(order.function))
    function, args, kwargs = pickle.loads(order.function)
    return Here(function, args, kwargs)
