"""The generators of devices: those that have started, and what waits for those that have not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._utils import _LazySeedTracker

from torchturbo.regions._devices import CUDA, Devices
from torchturbo.regions._streams import _cell
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import always


class Module(SimpleNamespace):
    """Stands for ``torch.cuda``: starts when it is told, as torch does, with generators seeded by chance."""

    def __init__(self, devices: int) -> None:
        super().__init__(default_generators=(), _lazy_seed_tracker=_LazySeedTracker(), _queued_calls=[])
        self.devices = devices

    def is_initialized(self) -> bool:
        return bool(self.default_generators)

    def start(self) -> None:
        """As ``_lazy_init`` does."""
        self.default_generators = tuple(torch.Generator() for _ in range(self.devices))
        for generator in self.default_generators:
            generator.seed()
        self._queued_calls.extend(call for call in self._lazy_seed_tracker.get_calls() if call)
        for call, _ in self._queued_calls:
            call()

    def manual_seed_all(self, seed: int) -> None:
        """As torch's does."""

        def cb() -> None:
            for generator in self.default_generators:
                generator.manual_seed(seed)

        if self.is_initialized():
            cb()
        else:
            self._lazy_seed_tracker.queue_seed_all(cb, ["here"])

    def set_rng_state(self, state: torch.Tensor) -> None:
        """As torch's does."""

        def cb() -> None:
            self.default_generators[0].set_state(state)

        cb.__qualname__ = "set_rng_state.<locals>.cb"
        if self.is_initialized():
            cb()
        else:
            self._queued_calls.append((cb, ["here"]))

    def draw(self) -> list[float]:
        """A number of each device."""
        return [torch.rand((), generator=generator).item() for generator in self.default_generators]


@pytest.fixture
def module() -> Module:
    return Module(2)


@pytest.fixture
def cell(module: Module) -> Cell:
    return _cell("a pretended kind of device", Devices(module))


def start_of(seed: int) -> float:
    return torch.rand((), generator=torch.Generator().manual_seed(seed)).item()


def seeded(cell: Cell, seed: int) -> Any:
    from torchturbo.regions._streams import _STREAMS, Seed

    return always(Seed(_STREAMS[cell], seed)).value


def test_all_devices_that_run_start_from_the_seed_and_come_back(module: Module, cell: Cell) -> None:
    module.start()
    found = cell.read()
    following = [torch.rand((), generator=generator.clone_state()).item() for generator in module.default_generators]
    cell.write(seeded(cell, 5), found)
    assert cell.read() == seeded(cell, 5)
    assert module.draw() == [start_of(5)] * 2
    assert cell.read() != seeded(cell, 5)
    cell.write(found, seeded(cell, 5))
    assert cell.read() == found
    assert module.draw() == following


def test_devices_that_start_later_start_from_the_seed(module: Module, cell: Cell) -> None:
    found = cell.read()
    cell.write(seeded(cell, 5), found)
    assert cell.read() == seeded(cell, 5)
    assert cell.read() != seeded(cell, 6)
    module.start()
    assert module.draw() == [start_of(5)] * 2


def test_what_waits_is_put_back(module: Module, cell: Cell) -> None:
    module.manual_seed_all(3)
    found = cell.read()
    before = vars(module._lazy_seed_tracker).copy(), list(module._queued_calls)
    cell.write(seeded(cell, 5), found)
    module.manual_seed_all(8)
    module.set_rng_state(torch.Generator().manual_seed(1).get_state())
    cell.write(found, seeded(cell, 5))
    assert (vars(module._lazy_seed_tracker), module._queued_calls) == before
    module.start()
    assert module.draw() == [start_of(3)] * 2


def test_what_else_was_queued_meanwhile_stays(module: Module, cell: Cell) -> None:
    found = cell.read()
    module._queued_calls.append((print, ["somebody else"]))
    cell.write(found, found)
    assert module._queued_calls == [(print, ["somebody else"])]


def test_devices_that_have_started_meanwhile_do_what_waited_for_them(module: Module, cell: Cell) -> None:
    module.manual_seed_all(3)
    module.set_rng_state(torch.Generator().manual_seed(1).get_state())
    found = cell.read()
    cell.write(seeded(cell, 5), found)
    module.start()
    module.draw()
    cell.write(found, seeded(cell, 5))
    assert module.draw() == [start_of(3)] * 2


def test_devices_that_have_started_meanwhile_and_had_no_seed_have_none(module: Module, cell: Cell) -> None:
    found = cell.read()
    cell.write(seeded(cell, 5), found)
    module.start()
    cell.write(found, seeded(cell, 5))
    assert cell.read() != seeded(cell, 5)
    assert module.default_generators[0].initial_seed() != 5


def test_a_forked_child_without_devices_leaves_those_of_its_parent_alone(module: Module, cell: Cell) -> None:
    module.start()
    found = cell.read()
    module.default_generators = ()  # what torch answers there
    cell.write(found, found)
    assert not module.is_initialized()


def test_nothing_is_started_here() -> None:
    assert CUDA.get() is not None
    if not torch.cuda.is_available():
        assert not torch.cuda.is_initialized()
