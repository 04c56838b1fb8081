"""One entry of a block: what it holds, who opened it and where, and what a user can ask of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import CodeType
from typing import TYPE_CHECKING, Any

from torchturbo._plan import Plan
from torchturbo._program import Program
from torchturbo._stack import Layer
from torchturbo.regions._backward import accumulating_in, is_within_another, scaler_in
from torchturbo.regions._here import thread
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._seeding import seeding_in

if TYPE_CHECKING:
    from torchturbo._report import Report

Site = tuple[int, CodeType, int]
"""Who opened a block: the identity of the frame that must close it (0 for none), and the code and instruction."""


class Open(list["Active"]):
    """One thread's blocks, oldest first; and those of them that another thread has closed as far as it could."""

    def __init__(self) -> None:
        super().__init__()
        self.astray: list[Active] = []
        self.thread = threading.current_thread()


class Active(Layer):
    """One entry of a block, in force until it is left."""

    __slots__ = ("_open", "_owner", "_program", "_site")

    _owner: object
    _program: Program
    _open: Open
    _site: Site

    @property
    def plan(self) -> Plan:
        """What was decided, and why."""
        return self._program.plan

    @property
    def where(self) -> str:
        """The line that opened the block, as ``file:line``; of an accelerated function its own first line."""
        # Finding the line takes longer than opening the block does, so it waits until somebody asks.
        _, code, instruction = self._site
        line = next((n for start, end, n in code.co_lines() if start <= instruction < end and n), code.co_firstlineno)
        return f"{code.co_filename}:{line}"

    @property
    def scaler(self) -> Scaler | None:
        """What scales the gradients of backward in fp16, or None where nothing has to be scaled."""
        return scaler_in(self.writes)

    def end(self) -> None:
        """What a block that has not failed does before it ends."""
        self.flush()
        steps_later = accumulating_in(self.writes) is None and thread.here.accumulating is not None
        if self.scaler is not None and not steps_later and not is_within_another(self.parts()):
            self.scaler.tell_of_a_step_outside()
        seeding = seeding_in(self.writes)
        if seeding is not None:
            seeding.tell_of_what_was_not_resumed()

    @property
    def is_last_micro_step(self) -> bool:
        """Whether the next optimizer step happens, where ``accumulate=`` has some wait; else True."""
        accumulating = accumulating_in(self.writes)
        return accumulating is None or accumulating.is_last_micro_step

    def flush(self) -> None:
        """Takes the optimizer steps that wait for more micro-batches, with those that have come.

        The end of the block does so by itself. Nothing happens where nothing waits.
        """
        accumulating = accumulating_in(self.writes)
        if accumulating is not None:
            accumulating.flush()

    def state_dict(self) -> dict[str, Any]:
        """What this block has of its own, for a checkpoint: where its random numbers, loaders and scaling are.

        Save it after a step, beside the model's and the optimizer's. `torch.load(weights_only=True)` reads it.

        Raises:
            AccumulationError: micro-batches wait for a step.
            RuntimeError: the block is not open in this thread.
        """
        from torchturbo._resume import state_of

        return state_of(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where another run was; each loader goes on in the middle of its epoch when it is next iterated.

        Load it first of all in the block, or after models and optimizers are made: random numbers go on from here.

        Args:
            state_dict: what ``state_dict()`` has returned in a block with the same options.

        Raises:
            ValueError: it is of a block with another seed or another scaling; nothing has been changed.
            RuntimeError: the block is not open in this thread, or a block in it has a seed too.
        """
        from torchturbo._resume import resume_from

        resume_from(self, state_dict)

    @property
    def thread(self) -> str:
        """The name of the thread that opened the block."""
        return self._open.thread.name

    def report(self) -> Report:
        """Prints what this block put in force, and returns it."""
        from torchturbo._report import report

        return report(self)

    def __repr__(self) -> str:
        return f"<Active {self.plan.profile.name!r} at {self.where} in {self.thread}>"
