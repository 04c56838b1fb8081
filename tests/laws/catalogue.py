"""Every setting, every value to try, every cell: found by looking in the catalogue, so that a new one is judged too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo.hardware import Hardware
from torchturbo.settings._base import Cell, Group, Setting, Write
from torchturbo.settings._edits import Edit, Raw
from torchturbo.testing import MACHINES, pretend_hardware

VALUES: dict[str, tuple[object, ...]] = {
    "num_threads": (1, 2, 3),
    "cudnn_benchmark_limit": (0, 7),
    "cublas_workspace": (":16:8", ":4096:8"),
    "alloc_conf": ("expandable_segments:True", "max_split_size_mb:128"),
    "init_scale": (1.0, 2.0**20),
    "growth_factor": (2.0, 4.0),
    "backoff_factor": (0.5, 0.25),
    "growth_interval": (1, 2000),
    "accumulate": (1, 4),
    "seed": (0, 42, 2**32 - 1),
    "num_workers": (0, 4),
    "prefetch_factor": (1, 3),
}
"""What to try where a setting's values cannot be listed. A new setting of that kind says here what to try."""

_H100 = MACHINES["H100"]
EVERYTHING = replace(_H100, cpu=replace(_H100.cpu, avx512=True, bf16=True, fp16=True, amx=True, amx_fp16=True))
"""A machine that refuses no value."""

NO_GPU = replace(MACHINES["cpu-bf16"], cpu=EVERYTHING.cpu)
"""A machine that refuses only what needs a GPU."""

REFUSED_BY_TORCH: frozenset[tuple[str, object]] = frozenset(
    () if torch.version.cuda else (("blas_library", "cublaslt"),)
)
"""What a torch built without CUDA refuses when it is written, however much hardware is pretended."""


@dataclass(frozen=True, repr=False)
class Case:
    """A value of a setting on a machine that can do it; `refused` where this build of torch will not have it."""

    setting: Setting
    value: object
    hardware: Hardware

    @property
    def writes(self) -> tuple[Write, ...]:
        """The edits that put the value in force."""
        return self.setting.edits(self.value, self.hardware)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that the setting explains or writes."""
        return tuple(dict.fromkeys((*self.setting.cells, *(cell for cell, _ in self.writes))))

    @property
    def refused(self) -> bool:
        """Whether this build of torch refuses the value, so that an entry must fail and leave no trace."""
        return (self.setting.name, self.value) in REFUSED_BY_TORCH

    def here(self) -> AbstractContextManager[object]:
        """Pretends the case's machine: what a setting shows may be about the device that work runs on."""
        return pretend_hardware(self.hardware)

    def __repr__(self) -> str:
        return f"{self.setting.name}={self.value!r} on {self.hardware.device_type}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of it


def values(setting: Setting) -> tuple[object, ...]:
    """The values to try of a setting."""
    found = (*setting.values.choices, *VALUES.get(setting.name, ()))
    if not found or (setting.values.kind is not None and setting.name not in VALUES):
        raise LookupError(f"say in {__file__} which values of {setting.name} the laws shall try")
    return tuple(setting.parse(value) for value in found)


def cases_of(setting: Setting) -> Iterator[Case]:
    """Every value of a setting where it is not left out: with a GPU, and without one where that differs."""
    seen = set()
    for hardware in (EVERYTHING, NO_GPU):
        for value in dict.fromkeys(setting.resolve(value, hardware) for value in values(setting)):
            if setting.refusal(hardware, value) is None:
                case = Case(setting, value, hardware)
                written = value, tuple(cell for cell, _ in case.writes)
                if written not in seen:
                    seen.add(written)
                    yield case


def cases() -> Iterator[Case]:
    """Every value of every setting, on every kind of machine where it is not left out."""
    for setting in SETTINGS.values():
        yield from cases_of(setting)


CELLS: dict[str, Cell] = {cell.name: cell for case in cases() for cell in case.cells}
"""Every cell that some setting explains or writes, by name."""


def with_cell(setting: Setting, old: Cell, new: Cell) -> Setting:
    """The setting with one of its cells replaced, wherever it speaks of it."""

    def edits(value: object, hardware: Hardware) -> tuple[Write, ...]:
        return tuple((new if cell is old else cell, edit) for cell, edit in setting.edits(value, hardware))

    return replace(setting, cells=tuple(new if cell is old else cell for cell in setting.cells), edits=edits)


def writes_of(options: Mapping[str, object]) -> tuple[Write, ...]:
    """The edits that put options in force on a machine that can do everything, each cell once."""
    values: dict[str, object] = {}
    for name, value in options.items():
        option = OPTIONS[name]
        values |= option.members(value) if isinstance(option, Group) else {name: value}
    edits: dict[Cell, Edit] = {}
    for name, setting in SETTINGS.items():
        if name in values:
            for cell, edit in setting.edits(setting.resolve(values[name], EVERYTHING), EVERYTHING):
                edits[cell] = _both(edits[cell], edit) if cell in edits else edit
    return tuple(edits.items())


def everything_at_once() -> tuple[Write, ...]:
    """One layer that changes as much as one can: of each setting a value that is not in force."""
    options = {}
    for name, setting in SETTINGS.items():
        possible = [case.value for case in cases_of(setting) if case.hardware is EVERYTHING and not case.refused]
        if possible:
            now = setting.now()
            options[name] = next((value for value in possible if value != now), possible[0])
    return writes_of(options)


def _both(first: Edit, then: Edit) -> Edit:
    def edit(beneath: Raw) -> Raw:
        return then(first(beneath))

    return edit
