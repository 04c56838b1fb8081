"""What processes that multiprocessing starts anew inherit from a script under `torchturbo run`.

A forked process has it all. A spawned one is a new Python that knows nothing of the launch line: the process object
that it is sent carries what is asked for, and a block is opened as that arrives, once the script has been imported.
"""

from __future__ import annotations

import multiprocessing.context
import sys
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import CodeType
from typing import Any

from torchturbo import _sources
from torchturbo._active import Active
from torchturbo._arrays import float_arrays
from torchturbo._sources import Sources
from torchturbo._turbo import _enter, _leave, turbo

_CARRIED = "_torchturbo"


class _Inherited:
    """What is asked for, which is put in force where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return inherit, (_sources.sources(),)


def inherit(others: Sources) -> _Inherited:
    """Opens the block of a spawned process, in force until it ends, and has its own children inherit it.

    Args:
        others: what is asked for.
    """
    _sources.settle(others)
    code: CodeType = compile("", str(getattr(sys.modules.get("__mp_main__"), "__file__", "-c")), "exec")
    around = turbo()
    active = _enter(around, (0, code, -1))
    float_arrays(around)
    Finalize(None, _end, (active,), exitpriority=-100)
    hand_down()
    return _Inherited()


def _end(active: Active) -> None:
    if active in active._open:
        _leave(active, None)


def hand_down() -> None:
    """Has processes that are spawned from here on inherit what others than the code ask for, but for loaders' workers.

    What a worker computes is data, which should be as it is without us.
    """
    context: Any = multiprocessing.context
    for kind in (context.SpawnProcess, getattr(context, "ForkServerProcess", None)):
        if kind is not None and not hasattr(kind._Popen, _CARRIED):
            kind._Popen = staticmethod(_carrying(kind._Popen))


def _carrying(start: Any) -> Any:
    def popen(process: BaseProcess) -> Any:
        if str(getattr(getattr(process, "_target", None), "__module__", "")).startswith("torch.utils.data."):
            return start(process)
        if not _can_be_imported():
            # Run from a folder of its own, which the script's has replaced in the path that the process gets.
            sys.stderr.write(f"torchturbo: this one is not installed, so {process.name} runs without it\n")
            return start(process)
        setattr(process, _CARRIED, _Inherited())
        try:
            return start(process)
        finally:
            delattr(process, _CARRIED)

    setattr(popen, _CARRIED, True)
    return popen


def _can_be_imported() -> bool:
    """Whether a new process with this one's path finds this very package."""
    specs = (finder.find_spec("torchturbo", None) for finder in sys.meta_path)
    found = next(filter(None, specs), None)
    return found is not None and found.origin == sys.modules["torchturbo"].__file__
