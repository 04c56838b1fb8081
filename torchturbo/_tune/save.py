"""A profile that was found, written to the file that configures torchturbo, with what chose it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from torchturbo._config import OWN, SHARED, find
from torchturbo._measured import MEASURED
from torchturbo._tune.data import Tuned
from torchturbo.errors import ConfigError, ProfileNameError
from torchturbo.profiles import PROFILES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a profile is written to.

    Attributes:
        path: the file.
        name: of the profile.
    """

    path: Path
    name: str

    @classmethod
    def of(cls, write: bool | str | Path, name: str) -> Place | None:
        """Where to write; None for nowhere.

        Args:
            write: whether, or a path.
            name: of the profile.

        Raises:
            ProfileNameError: it is the name of a built-in profile.
            ConfigError: the file cannot be read, or has a profile of that name that was made by hand.
        """
        if name in PROFILES:
            raise ProfileNameError(f"{name!r} is a built-in profile: give what is found another name, as name='mine'")
        if write is False:
            return None
        if write is True:
            folder = Path.cwd()
            # Beside a table in pyproject.toml, a torchturbo.toml of its own would take that table's place.
            path = find(folder).path or folder / OWN
        else:
            path = Path(write)
        place = cls(path, name)
        place._profiles(place._document())
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise ConfigError(f"{path} cannot be written to: name another file, as write='torchturbo.toml'")
        return place

    def write(self, tuned: Tuned) -> None:
        """Writes it, and leaves all else in the file as it is.

        Args:
            tuned: the profile.

        Raises:
            ConfigError: the file cannot be written to.
        """
        document = self._document()
        profiles = self._profiles(document)
        profiles[self.name] = _table(tuned)
        try:
            self._replace(tomlkit.dumps(document))
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written to: {error}") from error

    def _document(self) -> Any:
        try:
            return tomlkit.parse(self.path.read_text(encoding="utf-8")) if self.path.exists() else tomlkit.document()
        except (OSError, UnicodeDecodeError, TOMLKitError) as error:
            raise ConfigError(f"{self.path} cannot be read: {error}") from error

    def _profiles(self, document: Any) -> Any:
        """The table of profiles in a document, which is made where there is none."""
        table = document
        for key in (*(("tool", "torchturbo") if self.path.name == SHARED else ()), "profiles"):
            if key not in table:
                table[key] = tomlkit.table(is_super_table=True)
            table = table[key]
            if not hasattr(table, "keys"):
                raise ConfigError(f"{self.path}: expected {key!r} to be a table")
        if self.name in table and MEASURED not in table[self.name]:
            raise ConfigError(
                f"{self.path}: the profile {self.name!r} was made by hand, and is not written over: give what is found "
                "another name, as name='tuned_here'"
            )
        return table

    def _replace(self, text: str) -> None:
        # Whoever reads it at this moment sees all of it or nothing.
        folder = self.path.absolute().parent
        handle, part = tempfile.mkstemp(dir=folder, prefix=self.path.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            if self.path.exists():
                os.chmod(part, self.path.stat().st_mode)
            else:
                os.chmod(part, 0o644)
            os.replace(part, self.path)
        except BaseException:
            os.unlink(part)
            raise


def _table(tuned: Tuned) -> Any:
    tuning, table = tuned.tuning, tomlkit.table()
    table["gain"], table["give"] = tuned.gain, tuned.give
    for name, value in tuned.items():
        table[name] = "none" if value is None else value
    measured = tomlkit.table()
    measured["hardware"] = tuning.hardware.name
    measured["torch"] = tuning.torch
    measured["cuda"] = tuning.hardware.build.cuda or "none"
    measured["date"] = tuning.date
    measured["step"] = tuning.step
    measured["seconds_before"], measured["seconds_after"] = tuning.before, tuning.after
    if tuning.speedup is not None:
        measured["speedup"] = [tuning.speedup.low, tuning.speedup.value, tuning.speedup.high]
    measured["rounds"] = tuning.rounds
    measured["tolerance"], measured["reference"] = tuning.tolerance, tuning.reference
    if tuning.drift is not None:
        drift = tuning.drift
        parts = {"loss": drift.loss, "gradients": drift.gradients, "outputs": drift.outputs}
        measured["drift"] = {name: value for name, value in parts.items() if value is not None}
    tried = tomlkit.array()
    for each in tuning.tried:
        if each.speedup is not None:
            change = ", ".join(f"{name}={value}" for name, value in each.change.items())
            tried.append({"change": change, "speedup": each.speedup.value, "outcome": each.outcome})
    measured["tried"] = tried.multiline(True)
    table[MEASURED] = measured
    return table
