"""What profiles come to on a machine: decisions as rows, as JSON, and as rich lays them out in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from torchturbo._plan import Decision, decide
from torchturbo._report import words
from torchturbo._report.text import STYLES
from torchturbo._sheet import hanging, indented, section, table
from torchturbo._sources import Sources
from torchturbo.hardware import Hardware
from torchturbo.profiles import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class Planned:
    """Profiles on a machine.

    Attributes:
        hardware: the machine.
        pretended: its name, or None for the one that this is.
        profiles: the profiles, with what is decided about each option.
        sources: what others than the code ask for, which is part of what is decided.
    """

    hardware: Hardware
    pretended: str | None
    profiles: tuple[tuple[Profile, tuple[Decision, ...]], ...]
    sources: Sources

    def to_json(self) -> str:
        """All of it as JSON."""
        told: dict[str, Any] = {
            "machine": self.pretended,
            "device": self._device,
            "notes": list(self.notes()),
            "profiles": {
                profile.name: {
                    "gain": profile.gain,
                    "give": profile.give,
                    "built_in": profile.name in PROFILES,
                    "options": {decision.name: _plain(decision) for decision in decisions},
                }
                for profile, decisions in self.profiles
            },
        }
        return json.dumps(told, indent=2)

    @property
    def _device(self) -> str:
        return self.hardware.name

    def notes(self) -> Iterator[str]:
        """What else there is to know: who asks beside the code."""
        its = self.sources
        if its.disabled is not None:
            yield f"{its.disabled} switches torchturbo off: nothing of this is put in force."
        if its.default is not None:
            yield f"Where the code names no profile, it is {its.default.name} (from the file)."
        if its.profile is not None:
            yield f"{its.profile[1]} puts {its.profile[0].name} in the place of whatever the code names."

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        numbers = self._footnotes()
        yield from section(
            f"On {self.pretended}, which is pretended" if self.pretended else "On this machine",
            words.machine(self.hardware),
        )
        yield from section("", self.notes())
        for profile, decisions in self.profiles:
            yield from _profile(profile, decisions, numbers)
        yield from section("", (f"({number}) {sentence}" for sentence, number in numbers.items()))

    def _footnotes(self) -> dict[str, int]:
        reasons = (d.refused for _, decisions in self.profiles for d in decisions if d.refused is not None)
        return {reason: number for number, reason in enumerate(dict.fromkeys(reasons), start=1)}


def planned(profiles: tuple[Profile, ...], hardware: Hardware, sources: Sources, pretended: str | None) -> Planned:
    """What these profiles come to on a machine.

    Args:
        profiles: which.
        hardware: the machine.
        sources: what others than the code ask for; one who names another profile is told of, and not obeyed.
        pretended: the machine's name, if it is not this one.
    """
    options = Sources(profiles=sources.profiles, file=sources.file, environment=sources.environment)
    made = tuple((profile, decide(profile, {}, hardware, options).decisions) for profile in profiles)
    return Planned(hardware, pretended, made, sources)


def _profile(profile: Profile, decisions: tuple[Decision, ...], numbers: Mapping[str, int]) -> Iterator[RenderableType]:
    yield Text(profile.name, style="bold")
    for sign, sentence in (("+", profile.gain), ("-", profile.give)):
        if sentence:
            yield indented(hanging(f"{sign} {sentence}"), 2)
    others = any(_by(decision, profile) for decision in decisions)
    rows = table("option", "asked for", *(["by"] if others else []), "here", whole=("option", "here"))
    for decision in decisions:
        asked = [words.shown(decision.name, decision.asked), *([_by(decision, profile)] if others else [])]
        here = Text(_here(decision, numbers), style=STYLES["yes" if decision.refused is None else "no"])
        rows.add_row(Text(decision.name), *map(Text, asked), here)
    yield indented(rows, 2)
    yield Text()


def _here(decision: Decision, numbers: Mapping[str, int]) -> str:
    if decision.refused is not None:
        return f"no ({numbers[decision.refused]})"
    return words.shown(decision.name, decision.value)


def _by(decision: Decision, profile: Profile) -> str:
    """Who asks, where it is not the profile under that option's own name."""
    return decision.origin.removeprefix(f"profile {profile.name}").removeprefix(", ")


def _plain(decision: Decision) -> dict[str, object]:
    return {
        "asked": _jsonable(decision.asked),
        "here": None if decision.refused is not None else _jsonable(decision.value),
        "origin": decision.origin,
        "acts": decision.refused is None,
        "reason": decision.refused,
    }


def _jsonable(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
