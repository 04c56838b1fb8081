"""The generators of CUDA and XPU devices, which are not there before the first use of such a device.

Until then torch keeps the seeds that it is asked for in a queue, and that queue is the state. Nothing here starts a
device, asks for its number, or waits for it.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch


class _SeedAll:
    """What is queued to seed every generator of a kind of device; compares by what it does."""

    __slots__ = ("devices", "seed")

    def __init__(self, devices: Devices, seed: int) -> None:
        self.devices = devices
        self.seed = seed

    def __call__(self) -> None:
        for generator in self.devices.generators:
            generator.manual_seed(self.seed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _SeedAll):
            return NotImplemented
        return self.devices is other.devices and self.seed == other.seed

    def __hash__(self) -> int:
        return hash(self.seed)


Call = tuple[Any, Any]
"""Something queued, and the lines of the code that did so."""


class Queue(NamedTuple):
    """What waits for a kind of device to start.

    Attributes:
        all: the last call that seeds all devices, or None.
        one: the last call that seeds the current device, or None.
        order: these two in the order in which they were made.
        states: calls that put a state, oldest first.
    """

    all: Call | None
    one: Call | None
    order: tuple[Call | None, ...]
    states: tuple[Call, ...]


class State:
    """What a generator of torch says of itself: a tensor of bytes, which compares as bytes."""

    __slots__ = ("data", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        # Not by an operation: fake tensors and other modes would take it for one of the code around.
        self.data = ctypes.string_at(tensor.data_ptr(), tensor.numel())

    def __eq__(self, other: object) -> bool:
        return self.data == other.data if isinstance(other, State) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"<state {hash(self) & 0xFFFFFFFF:08x}>"


class States(tuple[State, ...]):
    """The state of each device's generator."""

    __slots__ = ()


class Devices:
    """The generators of one kind of device, or what waits for it.

    Args:
        module: ``torch.cuda`` or its like.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """Those of the devices that have started."""
        return tuple(self._module.default_generators)

    def get(self) -> Queue | States:
        """What waits, or the states."""
        if self._module.is_initialized():
            return States(State(generator.get_state()) for generator in self.generators)
        tracker = self._module._lazy_seed_tracker
        states = tuple(call for call in self._module._queued_calls if _puts_a_state(call))
        return Queue(tracker.manual_seed_all_cb, tracker.manual_seed_cb, tuple(tracker.call_order), states)

    def put(self, state: Queue | States) -> None:
        """Has that wait, or be the states.

        Where the devices have started since, they do now what they would have done then: what was queued, after a start
        by chance.
        """
        if isinstance(state, States):
            # A forked child has no devices, though its parent has.
            if self._module.is_initialized():
                for generator, its in zip(self.generators, state, strict=True):
                    generator.set_state(its.tensor)
        elif self._module.is_initialized():
            for generator in self.generators:
                generator.seed()
            for call in (*state.states, *state.order):
                if call is not None:
                    call[0]()
        else:
            tracker = self._module._lazy_seed_tracker
            tracker.manual_seed_all_cb, tracker.manual_seed_cb = state.all, state.one
            tracker.call_order = list(state.order)
            queued = self._module._queued_calls
            if tuple(call for call in queued if _puts_a_state(call)) != state.states:
                queued[:] = [*(call for call in queued if not _puts_a_state(call)), *state.states]

    def seed(self, seed: int) -> None:
        """Starts all generators afresh, or has them start so."""
        call = _SeedAll(self, seed)
        if self._module.is_initialized():
            call()
        else:
            self.put(_queue(call))

    def is_fresh(self, state: object, seed: int) -> bool:
        """Whether that is what seeding leaves."""
        if isinstance(state, Queue):
            return state == _queue(_SeedAll(self, seed))
        if not isinstance(state, States):
            return False
        fresh = (torch.Generator(generator.device).manual_seed(seed) for generator in self.generators)
        return state == States(State(generator.get_state()) for generator in fresh)

    def saved(self, state: Queue | States) -> Any:
        """What can be kept of it: states, or the seed that waits; None where other calls wait."""
        if isinstance(state, States):
            return [each.tensor.clone() for each in state]
        call = state.all
        return call[0].seed if call is not None and state == _queue(call[0]) else None

    def resume(self, saved: Any) -> None:
        """Has these be the states, or wait to be; or that seed."""
        if isinstance(saved, int):
            self.seed(saved)
            return
        for device, state in enumerate(saved):
            self._module.set_rng_state(state, device)


def _queue(call: _SeedAll) -> Queue:
    queued = (call, ["  torchturbo: seed=\n"])
    return Queue(queued, None, (None, queued), ())


def _puts_a_state(call: Call) -> bool:
    return getattr(call[0], "__qualname__", "") == "set_rng_state.<locals>.cb"


CUDA = Devices(torch.cuda)
XPU = Devices(torch.xpu)
