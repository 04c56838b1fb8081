"""What loops over data loaders do with their time, told while they run: `torchturbo.watch` for all loops in a block."""

from __future__ import annotations

from typing import Any

from torchturbo.regions._monitoring import MONITOR, Monitor, told
from torchturbo.settings._base import Setting, Values
from torchturbo.settings._edits import anew


def _edits(value: Any, hardware: object) -> Any:
    return ((MONITOR, anew(lambda: None if value is False else Monitor(value))),)


monitor = Setting(
    help="Watch loops over data loaders: speed, waiting, GPU, memory, and once an alert that names the cause.",
    values=Values((False, "auto", "lines", "json"), {True: "auto", None: False}),
    cells=(MONITOR,),
    edits=_edits,
    show=lambda raw: False if raw is None else raw.show,
    told=told,
)
