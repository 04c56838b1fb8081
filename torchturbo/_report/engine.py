"""What the engine holds at this moment: which block put which value in force, over what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torchturbo import _turbo
from torchturbo._active import Active
from torchturbo._plan import Decision
from torchturbo._report.data import Block
from torchturbo.settings._base import Cell, Scope, Setting
from torchturbo.settings._edits import Raw


@contextmanager
def still() -> Iterator[None]:
    """Keeps blocks from opening and closing: reading precision may write it for a moment, and put it back."""
    with _turbo._LOCK:
        yield


@dataclass(frozen=True, slots=True)
class Engine:
    """The blocks in force as this thread sees them, oldest first.

    Attributes:
        process: those that hold state of the process.
        thread: those that hold this thread's own state.
        active: the block that is asked about, if it is open.
        blocks: every open block, as data.
        about: the block that is asked about, open or not, as data.
    """

    process: tuple[Active, ...]
    thread: tuple[Active, ...]
    active: Active | None
    blocks: tuple[Block, ...]
    about: Block | None

    @classmethod
    def now(cls, active: Active | None) -> Engine:
        """The engine at this moment, which holds while it is `still`.

        Args:
            active: the block that is asked about.
        """
        in_force = _turbo.in_force()
        is_open = any(each is active for each in in_force)
        return cls(
            in_force,
            tuple(_turbo._THREAD.open),
            active if is_open else None,
            tuple(_block(each, open=True) for each in in_force),
            None if active is None else _block(active, open=is_open),
        )

    def layers(self, scope: Scope) -> tuple[Active, ...]:
        """The blocks that may hold state of this scope."""
        return self.process if scope == "process" else self.thread

    def found(self, setting: Setting) -> tuple[Raw, ...]:
        """The raw state of its cells beneath every block, or beneath the one that is asked about."""
        layers = self.layers(setting.scope)
        # A block of another thread holds none of this thread's own state: then all layers count.
        start = next((place for place, layer in enumerate(layers) if layer is self.active), 0)
        return tuple(_held(cell, layers[start:], _FOUND) for cell in setting.cells)

    def put(self, setting: Setting) -> tuple[Raw, ...]:
        """The raw state that the newest blocks put in force, which somebody else may have changed since."""
        layers = self.layers(setting.scope)[::-1]
        return tuple(_held(cell, layers, _PUT) for cell in setting.cells)

    def decisions(self, setting: Setting) -> tuple[tuple[Active, Decision], ...]:
        """What open blocks decided about the setting, newest first."""
        return tuple(
            (layer, decision)
            for layer in reversed(self.layers(setting.scope))
            for decision in layer.plan.decisions
            if decision.name == setting.name
        )

    def asked(self, option: str, scope: Scope) -> tuple[Active, str, object] | None:
        """The newest block that names an option itself, with who asked for it there, and for what."""
        for layer in reversed(self.layers(scope)):
            if (given := layer.plan.named.get(option)) is not None:
                return layer, given.origin, given.value
        return None


_FOUND, _PUT = 2, 3


def _held(cell: Cell, layers: tuple[Active, ...], which: int) -> Raw:
    """What the first of `layers` that holds the cell found or put there; the cell as it is if none does."""
    for layer in layers:
        for held in layer.parts():
            if held[0] is cell:
                return held[which]
    return cell.read()


def _block(active: Active, *, open: bool) -> Block:
    plan = active.plan
    return Block(
        plan.profile.name,
        dict(plan.overrides),
        active.where,
        active.thread,
        tuple(decision.name for decision in plan.unsupported),
        len(plan.decisions),
        open,
        plan.disabled,
    )
