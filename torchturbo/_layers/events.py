"""What torch's profiler has seen of one step, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

LAYER = "layer: "
"""What the names of ranges around calls of modules begin with; a trace shows them so."""
STEP, BACKWARD = "the step", "backward"
_NODE = "autograd::engine::evaluate_function: "


class Range(NamedTuple):
    """Something that a thread of the CPU was at.

    Attributes:
        name: an operator, a node of backward, or one of our ranges.
        start: nanoseconds on the profiler's clock.
        end: likewise.
        thread: which thread, as the profiler counts them.
        sequence: of an operator that records something for backward, and of the node that it records: the number that
            both have; else -1.
        forward_thread: of a node of backward, the thread that has recorded it; 0 for anything else.
        key: what kernels name it by.
    """

    name: str
    start: int
    end: int
    thread: int
    sequence: int = -1
    forward_thread: int = 0
    key: int = 0

    @property
    def is_node(self) -> bool:
        """Whether it is a node of backward, with all that the engine does for it."""
        return self.name.startswith(_NODE)


class Kernel(NamedTuple):
    """Something that an accelerator was at.

    Attributes:
        name: of the kernel, or of the copy.
        start: nanoseconds on the profiler's clock.
        end: likewise.
        by: the range that has launched it, by its key.
    """

    name: str
    start: int
    end: int
    by: int


def seen(events: Iterable[Any]) -> tuple[list[Range], list[Kernel]]:
    """What the profiler has seen.

    Args:
        events: of kineto.
    """
    ranges, kernels = [], []
    for event in events:
        name, start = event.name(), event.start_ns()
        end, linked = start + event.duration_ns(), event.linked_correlation_id()
        if str(event.device_type()) != "DeviceType.CPU":
            # The profiler draws ranges on the GPU's line as well, which are no work of the GPU's.
            if not (event.is_user_annotation() or name.startswith((LAYER, "Optimizer."))):
                kernels.append(Kernel(name, start, end, linked))
        elif linked <= 0:  # else it is a call of the driver's, within the operator that makes it
            thread, forward = event.start_thread_id(), event.fwd_thread_id()
            ranges.append(Range(name, start, end, thread, event.sequence_nr(), forward, event.correlation_id()))
    return ranges, kernels
