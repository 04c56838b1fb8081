"""What a run did, in its order: digests of all that is compared, and values as far as there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchturbo._replay import bits
from torchturbo._replay.streams import Stream, standing
from torchturbo._replay.values import leaves

ROOM = 512 * 1024**2
"""Bytes of values that are kept of a run, to tell how far apart those of another are."""


@dataclass(slots=True)
class Event:
    """One value at one place of a run.

    Attributes:
        kind: ``"start"``, ``"input"``, ``"output"``, ``"gradient"``, ``"parameter"``, ``"end"`` or ``"returned"``.
        name: of the module or tensor.
        part: where it stands in what the module took or gave, as ``[0]`` or ``.logits``.
        call: how often the module had been called by then, counted from 1; 0 where nothing is called.
        step: the optimizer step that it belongs to, counted from 1.
        dtype: of a tensor, else None.
        shape: of a tensor.
        digest: of its bits; or what a value that is no tensor is.
        value: the values, where there was room for them.
        total: their sum in float64.
    """

    kind: str
    name: str
    part: str
    call: int
    step: int
    dtype: str | None
    shape: tuple[int, ...]
    digest: str
    value: Tensor | None = None
    total: float | None = None

    @property
    def place(self) -> tuple[str, str, str, int, int]:
        """Where it is in the run."""
        return self.kind, self.name, self.part, self.call, self.step


@dataclass(slots=True)
class Record:
    """A run.

    Attributes:
        events: what it did, in order.
        streams: where the random streams stood, by the number of events that there were by then.
        steps: optimizer steps that it took.
        modules: those that it called.
        values: how many numbers, texts and arrays it holds.
        unseen: what could not be looked into, and where it stands.
    """

    events: list[Event] = field(default_factory=list)
    streams: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    steps: int = 0
    modules: set[str] = field(default_factory=set)
    values: int = 0
    unseen: list[str] = field(default_factory=list)

    @property
    def draws(self) -> bool:
        """Whether some random stream has moved."""
        return bool(self.streams) and self.streams[0][1] != self.streams[-1][1]

    @property
    def tensors(self) -> int:
        """How many tensors it holds."""
        return sum(event.dtype is not None for event in self.events)


class Recorder:
    """Writes a record.

    Args:
        streams: the random streams to be looked at.
        begin: where they stood at the beginning, if that was earlier than now.
    """

    def __init__(self, streams: Iterable[Stream], begin: Mapping[str, str] | None = None) -> None:
        self.record = Record()
        self._streams = tuple(streams)
        if begin is not None:
            self.record.streams.append((0, dict(begin)))
        self.look_at_streams()
        self._room = ROOM

    def look_at_streams(self) -> None:
        """Notes where the random streams stand."""
        self.record.streams.append((len(self.record.events), standing(self._streams)))

    def add(self, kind: str, name: str, value: Any, call: int = 0) -> None:
        """Notes a value.

        Args:
            kind: as `Event` has it.
            name: what it belongs to.
            value: a tensor, or anything that holds some.
            call: the module's call.
        """
        step = self.record.steps + 1
        with bits.unseen():
            # What goes through modules may hold much that is not theirs; what is returned is meant to be compared.
            for path, leaf in leaves(value, objects=kind == "returned"):
                if not isinstance(leaf, Tensor):
                    self.record.events.append(Event(kind, name, path, call, step, None, (), leaf.text))
                    self.record.values += leaf.is_value
                    if leaf.unseen:
                        self.record.unseen.append(f"{place(kind, name, path, call, step)} ({leaf.unseen})")
                    continue
                for part_name, part in bits.parts(leaf):
                    self.record.events.append(self._tensor((kind, name, path + part_name, call, step), part))

    def _tensor(self, place: tuple[str, str, str, int, int], part: Tensor) -> Event:
        here = bits.here(part)
        value = None
        if here.nbytes <= self._room:
            self._room -= here.nbytes
            # It may be the user's own memory, which goes on changing.
            value = here.clone() if here.data_ptr() == part.data_ptr() else here
        total = float(here.sum(dtype=torch.float64)) if here.numel() else 0.0
        dtype = str(part.dtype).removeprefix("torch.")
        return Event(*place, dtype, tuple(part.shape), bits.digest(here), value, total)


def place(kind: str, name: str, part: str, call: int, step: int) -> str:
    """Where something stands in a run, as ``output of model.conv1, call 3, step 2``.

    Args:
        kind: as `Event` has it.
        name: of the module or tensor.
        part: where in what it took or gave.
        call: of the module.
        step: of the optimizer.
    """
    of = {
        "start": f"first value of {name}, before anything was computed",
        "input": f"input{part} of {name}, call {call}, step {step}",
        "output": f"output{part} of {name}, call {call}, step {step}",
        "gradient": f"gradient{part} of {name} at step {step}",
        "parameter": f"{name}{part} after step {step}",
        "end": f"{name}{part} at the end",
        "returned": f"returned value{part}",
        "order": f"order of things at {name or 'the end'}",
    }
    return of[kind]
