"""The streams of random numbers that a process shares, as cells: each is taken out and put back exactly.

What is put in a stream is a `Seed`, which starts it afresh; what is read of it is where it stands. A layer that leaves
from beneath hands the state it found to the next newer one whatever that has found, since all that was drawn on top of
a layer's own seed belongs to that layer.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import torch

from torchturbo.regions._devices import CUDA, XPU, State
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Raw, always


class Stream(Protocol):
    """One stream of random numbers."""

    def get(self) -> Any:
        """Where it stands, comparable."""

    def put(self, state: Any) -> None:
        """Has it stand there again."""

    def seed(self, seed: int) -> None:
        """Starts it afresh."""

    def is_fresh(self, state: Any, seed: int) -> bool:
        """Whether that is where it stands after it was started with `seed` and nothing was drawn."""

    def saved(self, state: Any) -> Any:
        """The same in numbers, strings, tuples, dicts and tensors; None if it cannot be saved and is left alone."""

    def resume(self, saved: Any) -> None:
        """Has it stand where `saved` says, in another process perhaps."""


class Seed:
    """The raw state of a stream that starts with a seed; equal to what is read of it before anything is drawn.

    Args:
        stream: the stream.
        seed: at least 0.
    """

    __slots__ = ("seed", "stream")

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream = stream
        self.seed = seed

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Seed):
            return self.stream is other.stream and self.seed == other.seed
        return self.stream.is_fresh(other, self.seed)

    def __hash__(self) -> int:
        return hash(self.seed)

    def __repr__(self) -> str:
        return f"<seed {self.seed}>"


class Once(Seed):
    """One that is put once and compared with nothing: to tell whether a stream is fresh takes as long as to seed it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def _now(found: Raw, was: Raw, now: Raw) -> Raw:
    return now


_STREAMS: dict[Cell, Stream] = {}


def _cell(name: str, stream: Stream) -> Cell:
    def write(raw: Raw, over: Raw) -> None:
        if isinstance(raw, Seed):
            stream.seed(raw.seed)
        else:
            stream.put(raw)

    cell = Cell(name, "process", stream.get, write, _now)
    _STREAMS[cell] = stream
    return cell


class _Python:
    def get(self) -> Any:
        return random.getstate()

    def put(self, state: Any) -> None:
        random.setstate(state)

    def seed(self, seed: int) -> None:
        random.seed(seed)

    def is_fresh(self, state: Any, seed: int) -> bool:
        # A generator of this kind stands at its end until the first draw, so most are told apart without seeding one.
        return bool(state[1][-1] == 624) and state == random.Random(seed).getstate()

    def saved(self, state: Any) -> Any:
        return state

    def resume(self, saved: Any) -> None:
        random.setstate(saved)


class _Torch:
    """A generator of torch's that is always there."""

    def __init__(self, generator: Callable[[], torch.Generator]) -> None:
        self._generator = generator

    def get(self) -> Any:
        return State(self._generator().get_state())

    def put(self, state: Any) -> None:
        self._generator().set_state(state.tensor)

    def seed(self, seed: int) -> None:
        self._generator().manual_seed(seed)

    def is_fresh(self, state: Any, seed: int) -> bool:
        device = self._generator().device
        return bool(state == State(torch.Generator(device).manual_seed(seed).get_state()))

    def saved(self, state: Any) -> Any:
        return state.tensor.clone()

    def resume(self, saved: Any) -> None:
        self._generator().set_state(saved)


class _NumPyState:
    """Where NumPy's own generator stands, and which generator that is."""

    __slots__ = ("generator", "state")

    def __init__(self, state: dict[str, Any], generator: Any) -> None:
        self.state = state
        self.generator = generator

    @property
    def data(self) -> Any:
        """The state as something that compares and hashes; not needed by most, and it takes a while."""
        return _plain(self.state)

    def __eq__(self, other: object) -> bool:
        return self.data == other.data if isinstance(other, _NumPyState) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.data)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _plain(item)) for name, item in value.items())
    return value.tobytes() if hasattr(value, "tobytes") else value


class _NumPy:
    """NumPy's functions of old (``numpy.random.rand`` and its like), which share one generator."""

    def __init__(self) -> None:
        self._module: Any = None

    def found(self) -> bool:
        """Whether NumPy is here; then it is loaded, so that nobody loads it in a block and finds a stream of its own.

        NumPy seeds its generator by chance when it is loaded.
        """
        try:
            self._module = importlib.import_module("numpy.random")
        except ImportError:
            return False
        return hasattr(self._module, "set_bit_generator")

    def get(self) -> Any:
        module = self._module
        return _NumPyState(module.get_state(legacy=False), module.get_bit_generator())

    def put(self, state: Any) -> None:
        module = self._module
        if module.get_bit_generator() is not state.generator:
            module.set_bit_generator(state.generator)
        module.set_state(state.state)

    def seed(self, seed: int) -> None:
        module = self._module
        if not isinstance(module.get_bit_generator(), module.MT19937):
            module.set_bit_generator(module.MT19937())
        module.seed(_words(seed))

    def is_fresh(self, state: Any, seed: int) -> bool:
        inner = state.state["state"]
        if inner.get("pos") != 624 or state.state["has_gauss"]:
            return False
        fresh = self._module.RandomState(_words(seed)).get_state(legacy=False)
        return bool(state.data == _plain(fresh))

    def saved(self, state: Any) -> Any:
        return _in_lists(state.state)

    def resume(self, saved: Any) -> None:
        module = self._module
        name = saved["bit_generator"]
        if type(module.get_bit_generator()).__name__ != name:
            module.set_bit_generator(getattr(module, name)())
        module.set_state(_in_arrays(saved))


def _in_lists(value: Any) -> Any:
    """Arrays as tuples of their type and their numbers."""
    if isinstance(value, dict):
        return {name: _in_lists(item) for name, item in value.items()}
    return (value.dtype.str, value.tolist()) if hasattr(value, "tobytes") and value.ndim else value


def _in_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_arrays(item) for name, item in value.items()}
    return importlib.import_module("numpy").array(value[1], value[0]) if isinstance(value, tuple) else value


def _words(seed: int) -> Any:
    """A seed as NumPy takes it: larger ones in words of 32 bits.

    Highest first: Python seeds the same kind of generator with the lowest first, and would draw the same numbers.
    """
    if seed < 2**32:
        return seed
    return [seed >> place & 0xFFFFFFFF for place in reversed(range(0, seed.bit_length(), 32))]


def _mps() -> torch.Generator:
    return torch.mps._get_default_mps_generator()


_NUMPY = _NumPy()

PYTHON = _cell("Python's random", _Python())
NUMPY = _cell("NumPy's random", _NUMPY)
CPU = _cell("torch's generator on the CPU", _Torch(lambda: torch.default_generator))
_DEVICES = [_cell("torch's generators on CUDA", CUDA), _cell("torch's generators on XPU", XPU)]
if torch._C._has_mps and torch.backends.mps.is_available():
    _DEVICES.append(_cell("torch's generator on MPS", _Torch(_mps)))


@cache
def streams() -> tuple[Cell, ...]:
    """The cells of all streams that there are here."""
    return (PYTHON, *((NUMPY,) if _NUMPY.found() else ()), CPU, *_DEVICES)


def saved(cell: Cell, raw: Raw) -> Any:
    """Where a stream stands, to be kept in a checkpoint.

    Args:
        cell: the stream's.
        raw: what was read of it, or put there.
    """
    return {"seed": raw.seed} if isinstance(raw, Seed) else {"state": _STREAMS[cell].saved(raw)}


def resume(cell: Cell, saved: Mapping[str, Any]) -> None:
    """Has a stream go on from a checkpoint.

    Args:
        cell: the stream's.
        saved: what `saved` has returned.
    """
    if "seed" in saved:
        _STREAMS[cell].seed(saved["seed"])
    elif saved["state"] is not None:
        _STREAMS[cell].resume(saved["state"])


def seeds(seed: int, kind: type[Seed] = Seed) -> tuple[Write, ...]:
    """The edits that start every stream afresh.

    Args:
        seed: at least 0 and less than 2**64.
        kind: of the raw states.
    """
    return tuple((cell, always(kind(_STREAMS[cell], seed))) for cell in streams())
