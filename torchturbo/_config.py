"""What stands in a file: `[tool.torchturbo]` of pyproject.toml, or torchturbo.toml, found upwards from a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchturbo.errors import ConfigError

OWN, SHARED = "torchturbo.toml", "pyproject.toml"
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r""""[^"]*"|'[^']*'|[\w-]+""")


@dataclass(frozen=True, slots=True)
class Config:
    """One file.

    Attributes:
        path: where it is; None where there is none.
        table: what it says, as TOML has it.
        within: the keys of the table it stands in.
        text: the whole file, in which places are looked up.
    """

    path: Path | None = None
    table: Mapping[str, object] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    text: str = ""

    def at(self, *keys: str) -> str:
        """Where a key stands, as ``file:line``; an inline table's is that of the whole.

        Args:
            *keys: from the table down.
        """
        wanted, best, line = (*self.within, *keys), 0, 1
        header: tuple[str, ...] = ()
        for number, found in enumerate(self.text.splitlines(), 1):
            if named := _HEADER.match(found):
                here = header = _parts(named[1])
            elif named := _KEY.match(found):
                here = (*header, *_parts(named[1]))
            else:
                continue
            shared = min(len(here), len(wanted))
            if shared > best and here[:shared] == wanted[:shared]:
                best, line = shared, number
        return f"{self.name}:{line}"

    @property
    def name(self) -> str:
        """The file, as seen from where the process stands."""
        return _seen(self.path) if self.path is not None else "no file"


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _seen(path: Path) -> str:
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # another drive, or a working directory that is gone
        return str(path)
    return str(path) if relative.startswith(os.path.join("..", "..", "..")) else relative


def find(folder: Path) -> Config:
    """The nearest file at or above a folder that says something about torchturbo.

    In one folder torchturbo.toml comes before pyproject.toml. A pyproject.toml without our table is passed by.

    Args:
        folder: where to begin.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    for above in (folder, *folder.parents):
        for name in (OWN, SHARED):
            path = above / name
            if path.is_file() and (config := _of(path)) is not None:
                return config
    return Config()


def _of(path: Path) -> Config | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_seen(path)} cannot be read: {error}") from error
    shared = path.name == SHARED
    if shared and "torchturbo" not in text:
        return None
    import tomllib  # not before it is needed: importing torchturbo stays light

    try:
        table: object = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if shared and not re.search(r"^\s*\[tool\.torchturbo", text, re.MULTILINE):
            return None  # whoever owns that file will be told by their own tools
        raise ConfigError(f"{_seen(path)} is not TOML: {error}") from error
    within = ("tool", "torchturbo") if shared else ()
    for key in within:
        table = table.get(key) if isinstance(table, Mapping) else None
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise ConfigError(f"{Config(path, {}, within, text).at()}: expected a table, [tool.torchturbo]")
    return Config(path, table, within, text)
