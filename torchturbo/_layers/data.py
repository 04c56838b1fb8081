"""What a profile by layers has found, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torchturbo._pictures import Pictured
from torchturbo._told import of_that_name
from torchturbo.hardware import Hardware

PartName = Literal["input", "forward", "backward", "optimizer", "other", "idle"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One module, over all its calls in a step. Times are seconds, medians over the steps.

    Attributes:
        name: as the step's own variables have it: ``"model.blocks.0.mlp"``.
        kind: its class.
        calls: how often it is called in a step.
        forward: its forward, with the modules within it.
        forward_own: without them.
        backward: the backward of what its forward has recorded, with the modules within it.
        backward_own: without them.
        kept: bytes that it keeps for backward, with the modules within it; weights are not among them.
        kept_own: without them.
        parameters: bytes of its parameters, with those of the modules within it.
        parameters_own: without them.
        compiled: whether it runs as compiled code, which is one piece: of what is within nothing is known.
    """

    name: str
    kind: str
    calls: int
    forward: float
    forward_own: float
    backward: float
    backward_own: float
    kept: int
    kept_own: int
    parameters: int
    parameters_own: int
    compiled: bool

    @property
    def seconds(self) -> float:
        """Forward and backward, with the modules within it."""
        return self.forward + self.backward

    @property
    def own(self) -> float:
        """Forward and backward, without the modules within it."""
        return self.forward_own + self.backward_own


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the step.

    Attributes:
        part: ``"input"``: getting the batch; ``"forward"``, ``"backward"``, ``"optimizer"``; ``"other"``: anything
            else, as Python between them; ``"idle"``: nothing ran on the GPU, for another reason than the input.
        seconds: the median over the steps.
        percent: of the step; all parts together are 100.
    """

    part: PartName
    seconds: float
    percent: float


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of torch, over all its calls in a step.

    Attributes:
        name: as torch has it: ``"aten::mm"``.
        seconds: without the operators within it, the median over the steps.
        calls: in a step.
    """

    name: str
    seconds: float
    calls: int


@dataclass(frozen=True, slots=True)
class LayerCosts(Pictured):
    """What `profile_layers` has found. ``costs["model.head"]`` is one layer.

    Attributes:
        layers: every module that was called, the costliest first by its own time.
        shares: of the step, in its order; together 100 percent.
        operators: the costliest first.
        alone: seconds of forward and of backward that are of no layer, by part.
        kept_alone: bytes that are kept for backward and are of no layer.
        seconds: a step without the profiler, the median.
        profiled: a step under the profiler, the median, of which the shares are.
        clock: ``"GPU"`` where times are of the GPU's kernels, else ``"CPU"``.
        steps: how many were measured.
        step: the function.
        settings: what it ran under: the profile, and options.
        trace: the file with a trace of one step; None where none was asked for.
        hardware: the machine.
        torch: torch's version.
        notes: what there is to know, as sentences.
    """

    layers: tuple[Layer, ...]
    shares: tuple[Share, ...]
    operators: tuple[Operator, ...]
    alone: Mapping[str, float]
    kept_alone: int
    seconds: float
    profiled: float
    clock: Literal["CPU", "GPU"]
    steps: int
    step: str
    settings: Mapping[str, object]
    trace: str | None
    hardware: Hardware
    torch: str
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            KeyError: there is none; the message names the near ones.
        """
        return of_that_name(self.layers, name, "layer")

    def __repr__(self) -> str:
        return f"<LayerCosts: {len(self.layers)} layers, {self.steps} steps>"
