"""Arguments of data loaders that their calls leave at the default, filled in while they are made.

While some thread has a region open, `DataLoader.__init__` runs other code, which sees what the call names before torch
puts its defaults in. In a thread with a region it adds what the region asks for, as if the call had named it; the
loader is then one of torch's as any other, and keeps what it got.
"""

from __future__ import annotations

import inspect
from collections import Counter
from numbers import Integral
from typing import Any, Literal

from torch.utils.data import DataLoader

from torchturbo._dynamo import untraced
from torchturbo._words import some
from torchturbo.errors import in_a_line
from torchturbo.hardware import Hardware, detect
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Args, Exchange, Kwargs, code_like
from torchturbo.regions._datasets import not_to_be_pinned
from torchturbo.regions._workers import decided, starts_anew
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw

Option = Literal["num_workers", "prefetch_factor", "pin_memory", "persistent_workers"]
OPTIONS: tuple[Option, ...] = ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers")


class _Asked(Asked):
    """What a thread's region asks for, and what has come of it since it was opened.

    Attributes:
        wanted: the value of each option that is asked for.
        told: of each option, what has become of how many loaders.
    """

    def begin(self) -> None:
        """Asks for nothing."""
        self.wanted: dict[str, Any] = {}
        self.told: dict[str, Counter[str]] = {}


@untraced
def _made(loader: Any, args: Args, kwargs: Kwargs) -> Any:
    """`DataLoader.__init__`."""
    here = ASKING.thread.its
    if not here.wanted:
        return ARGUMENTS.theirs(loader, *args, **kwargs)
    named = {**dict(zip(ARGUMENTS.positional, args, strict=False)), **kwargs}
    outcomes: dict[str, str] = {}
    filled = _filled(here.wanted, named, outcomes) if "dataset" in named else {}
    result = ARGUMENTS.theirs(loader, *args, **{**kwargs, **filled})
    for option, outcome in outcomes.items():
        here.told[option][outcome] += 1
    return result


def _filled(wanted: dict[str, Any], named: dict[str, Any], outcomes: dict[str, str]) -> dict[str, Any]:
    """What is added to a call.

    Args:
        wanted: what is asked for.
        named: what the call names.
        outcomes: is told of each option what has become of it.
    """
    filled: dict[str, Any] = {}
    for option in wanted:
        if option in named:
            outcomes[option] = f"named {option} in the call"
    if "num_workers" in wanted and "num_workers" not in named:
        filled["num_workers"], outcomes["num_workers"] = decided(wanted["num_workers"], named)
    workers = filled.get("num_workers", named.get("num_workers", 0))
    has_workers = isinstance(workers, Integral) and int(workers) > 0
    for option in OPTIONS[1:]:
        if option in wanted and option not in named:
            value, outcome = _of_one(option, wanted[option], named, has_workers=has_workers)
            outcomes[option] = outcome
            if value is not None:
                filled[option] = value
    return filled


def _of_one(option: Option, wanted: Any, named: dict[str, Any], *, has_workers: bool) -> tuple[Any, str]:
    """What a loader is given for an option, or None, and what is to be told of it."""
    if option != "pin_memory" and not has_workers:
        return None, f"went without {option}: it is about workers, and there are none"
    if option == "pin_memory":
        return _pinned(wanted, named)
    if option == "prefetch_factor" and wanted == "auto":
        return None, "got torch's own prefetch_factor, 2: nobody knows the size of a batch before it is fetched"
    if option == "persistent_workers" and wanted:
        if hasattr(type(named["dataset"]), "set_epoch"):
            return None, "went without persistent_workers: the dataset has a set_epoch, of which they would not know"
        if wanted is True:
            return True, "got persistent_workers=True"
        if not starts_anew(named):
            return False, (
                "got persistent_workers=False: workers are forked here, which takes little time and shows them what "
                "has changed in the dataset since the last epoch"
            )
        return True, (
            "got persistent_workers=True: each start of a worker imports torch again; what changes in the dataset "
            "between epochs they do not see"
        )
    return wanted, f"got {option}={wanted}"


def _pinned(wanted: Any, named: dict[str, Any]) -> tuple[Any, str]:
    if wanted == "auto" and (reason := no_pinning(detect())) is not None:
        return False, f"got pin_memory=False: {reason}"
    try:
        reason = not_to_be_pinned(named) if wanted else None
    except Exception as error:
        reason = f"looking at what they load raised {in_a_line(error)}"
    if reason is not None:
        return None, f"went without pin_memory: {reason}"
    return bool(wanted), f"got pin_memory={bool(wanted)}"


def no_pinning(hardware: Hardware) -> str | None:
    """Why pinned memory does nothing on a machine, or None.

    Args:
        hardware: the machine.
    """
    if hardware.device_type in ("cuda", "xpu"):
        return None
    if hardware.device_type == "mps":
        return "torch pins no memory for Apple's GPU"
    return "pinned memory is for copies to a GPU, and there is none here"


def made() -> int:
    """How many data loaders have been made in this thread's block so far; 0 where it asks for nothing of them."""
    return max((sum(told.values()) for told in ASKING.thread.its.told.values()), default=0)


def told_of(option: str) -> str | None:
    """What has become of an option in this thread's block so far, in words, or None where it asks for nothing.

    Args:
        option: its name.
    """
    here = ASKING.thread.its
    if option not in here.wanted:
        return None
    if not here.told[option]:
        return "no data loader has been made in this thread's block yet"
    (first, times), *others = here.told[option].items()
    return "; ".join([f"{some(times, 'data loader')} {first}", *(f"{number} {rest}" for rest, number in others)])


# --------------------------------------------------------------------------------------------------- in place meanwhile


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    call: Any = "ours"
    return call(self, args, kwargs)


class _Arguments(Exchange):
    """`DataLoader.__init__`, whose signature stays what it is for whoever asks.

    Attributes:
        positional: the names of the arguments that can be given by position.
    """

    __slots__ = ("_signature", "positional")

    def __init__(self) -> None:
        # Somebody may have wrapped it before torchturbo was imported; what they call in the end is torch's.
        function: Any = inspect.unwrap(DataLoader.__init__)
        code = function.__code__
        self.positional: tuple[str, ...] = code.co_varnames[1 : code.co_argcount]
        self._signature: inspect.Signature | None = None
        super().__init__(function, code_like(function, _standing_in, _made))

    def settle(self, needed: bool) -> None:
        """Has it be there or not; so also after an interrupt that came half way.

        Args:
            needed: whether some thread asks for something.
        """
        function = self._function
        was = function.__code__ is self._ours
        if needed and not was:
            self._signature = self._signature or inspect.signature(function)
            vars(function).setdefault("__signature__", self._signature)
        super().settle(needed)
        if was and not needed and vars(function).get("__signature__") is self._signature:
            del function.__signature__


ARGUMENTS = _Arguments()
ASKING = Asking(_Asked, ARGUMENTS.settle)


def _cell(option: Option) -> Cell:
    def read() -> Raw:
        return ASKING.thread.its.wanted.get(option)

    def write(raw: Raw, over: Raw) -> None:
        asked = ASKING.thread.its
        if raw is None:
            asked.wanted.pop(option, None)
        else:
            if option not in asked.wanted:
                asked.told[option] = Counter()
            asked.wanted[option] = raw
        ASKING.settle()

    return Cell(f"a region's {option} of data loaders", "thread", read, write)


CELLS: dict[str, Cell] = {option: _cell(option) for option in OPTIONS}
"""What a thread's region asks of each option. Always written under the lock of the stack."""
