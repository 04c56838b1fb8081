"""What a plan of memory says, as frozen data. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchturbo._pictures import Pictured
from torchturbo._told import of_that_name


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What one step takes, from its second on, when the optimizer has its state.

    Attributes:
        name: what is in force: ``"now"``, or the switch on top of that.
        settings: the options.
        weights: parameters and buffers.
        gradients: of all parameters, when backward has ended.
        optimizer: the optimizer's state.
        activations: what forward has left when it has ended: mostly what is kept for backward. The batch is not in it.
        peak: the most that is there at once in the step, with weights and optimizer; without the batch.
        refused: why it has no effect here, as a sentence; then the sizes are those of ``"now"``.
    """

    name: str
    settings: Mapping[str, object]
    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan(Pictured):
    """What `memory_plan` has found. ``plan["checkpoint"]`` is what one switch makes of it.

    Attributes:
        rows: ``"now"`` first, then each switch by itself, then the profile ``low_memory``.
        batch: bytes of the batch.
        model: the model's class.
        device: the type of device that is counted.
        torch: torch's version.
        notes: what there is to know, as sentences.
    """

    rows: tuple[MemoryUse, ...]
    batch: int
    model: str
    device: str
    torch: str
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> MemoryUse:
        """The row of that name.

        Raises:
            KeyError: there is none; the message names the near ones.
        """
        return of_that_name(self.rows, name, "switch")

    def __repr__(self) -> str:
        return f"<MemoryPlan: {self.model}, {len(self.rows)} rows>"
