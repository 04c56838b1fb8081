"""From a profile, overrides and hardware to decisions; pure, so that any machine's plan can be had on any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo.hardware import Hardware
from torchturbo.profiles import Profile
from torchturbo.settings._base import Group, Write


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one setting.

    Attributes:
        name: the setting.
        asked: the value that was asked for.
        value: the value that stands for it on this hardware.
        origin: who asked, as the report says it.
        refused: why it is left out here, as a sentence, or None where it is put in force.
    """

    name: str
    asked: object
    value: object
    origin: str
    refused: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision, on one machine.

    Attributes:
        profile: what was asked for by name.
        overrides: what was asked for by keyword.
        hardware: where.
        decisions: one a setting, in the order of the catalogue.
    """

    profile: Profile
    overrides: Mapping[str, object]
    hardware: Hardware
    decisions: tuple[Decision, ...]

    @property
    def writes(self) -> tuple[Write, ...]:
        """The edits that put the plan in force, in the order of the catalogue."""
        return tuple(
            write
            for decision in self.decisions
            if decision.refused is None
            for write in SETTINGS[decision.name].edits(decision.value, self.hardware)
        )

    @property
    def refused(self) -> tuple[Decision, ...]:
        """The decisions that are left out here."""
        return tuple(decision for decision in self.decisions if decision.refused is not None)


def _spread(options: Mapping[str, object], origin: str) -> dict[str, tuple[object, str]]:
    """Values by setting, with their origin; a setting that is named beats a group that includes it."""
    spread: dict[str, tuple[object, str]] = {}
    for name, value in options.items():
        option = OPTIONS[name]
        if isinstance(option, Group):
            for member, its in option.members(value).items():
                spread[member] = its, f"{origin}, {name}={value!r}"
    for name, value in options.items():
        if name in SETTINGS:
            spread[name] = value, origin
    return spread


def decide(profile: Profile, overrides: Mapping[str, object], hardware: Hardware) -> Plan:
    """What each option comes to on `hardware`.

    Args:
        profile: the values to start from.
        overrides: values that beat the profile's, by option, in their one spelling.
        hardware: the machine, real or pretended.
    """
    asked = _spread(profile, f"profile {profile.name}") | _spread(overrides, "argument")
    decisions = []
    for name, setting in SETTINGS.items():
        if name in asked:
            value, origin = asked[name]
            resolved = setting.resolve(value, hardware)
            decisions.append(Decision(name, value, resolved, origin, setting.refusal(hardware, resolved)))
    return Plan(profile, overrides, hardware, tuple(decisions))
