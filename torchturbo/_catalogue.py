"""Every option there is, found by looking in the folders `settings` and `regions`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import MappingProxyType, ModuleType
from typing import TypeAlias

from torchturbo import regions, settings
from torchturbo.settings._base import Cell, Group, Setting

Option: TypeAlias = Setting | Group


def declared(package: ModuleType) -> Iterator[Option]:
    """The options declared in a package's public modules, each told its name and its file.

    Args:
        package: a package whose modules hold options as public names.
    """
    for found in pkgutil.iter_modules(package.__path__):
        if found.name.startswith("_"):
            continue
        for name, value in vars(importlib.import_module(f"{package.__name__}.{found.name}")).items():
            if isinstance(value, Setting | Group) and not name.startswith("_"):
                value.name, value.area = name, found.name
                yield value


OPTIONS: MappingProxyType[str, Option] = MappingProxyType(
    {option.name: option for package in (settings, regions) for option in declared(package)}
)
"""Every option by its name: settings, groups of settings, and regions."""

SETTINGS: MappingProxyType[str, Setting] = MappingProxyType(
    {name: option for name, option in OPTIONS.items() if isinstance(option, Setting)}
)
"""The options that own state, by name."""

CELLS: tuple[Cell, ...] = tuple(dict.fromkeys(cell for setting in SETTINGS.values() for cell in setting.cells))
"""Every piece of torch's state that some option explains."""
