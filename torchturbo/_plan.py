"""From a profile, overrides and hardware to decisions; pure, so that any machine's plan can be had on any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo._sources import NOTHING, Given, Sources
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
        left_to: who does it instead, where it is left out because somebody else does; else None.
    """

    name: str
    asked: object
    value: object
    origin: str
    refused: str | None
    left_to: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision, on one machine.

    Attributes:
        profile: what was asked for by name.
        overrides: what was asked for by keyword.
        hardware: where.
        decisions: one a setting, in the order of the catalogue.
        named: every option that somebody names, with the value that wins and who asked for it.
        disabled: who has switched everything off, or None; then there are no decisions.
    """

    profile: Profile
    overrides: Mapping[str, object]
    hardware: Hardware
    decisions: tuple[Decision, ...]
    named: Mapping[str, Given]
    disabled: str | None = None

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

    @property
    def unsupported(self) -> tuple[Decision, ...]:
        """Those of them that the machine cannot do; the others are left to somebody else."""
        return tuple(decision for decision in self.refused if decision.left_to is None)


def _levels(profile: Profile, overrides: Mapping[str, object], sources: Sources) -> tuple[Mapping[str, Given], ...]:
    """What each rank asks for, lowest first."""
    if sources.disabled is not None:
        return ()
    origin = f"profile {profile.name}"
    if sources.profile is not None:
        profile = sources.profile[0]
        origin = f"profile {profile.name} ({sources.profile[1]})"
    return (
        {name: Given(value, origin) for name, value in profile.items()},
        sources.file,
        {name: Given(value, "argument") for name, value in overrides.items()},
        sources.environment,
        sources.command,
    )


def _spread(options: Mapping[str, Given]) -> dict[str, Given]:
    """Values by setting, with their origin; a setting that is named beats a group that includes it."""
    spread: dict[str, Given] = {}
    for name, (value, origin) in options.items():
        option = OPTIONS[name]
        if isinstance(option, Group):
            for member, its in option.members(value).items():
                spread[member] = Given(its, f"{origin}, {name}={value!r}")
    spread.update((name, given) for name, given in options.items() if name in SETTINGS)
    return spread


def asked(profile: Profile, overrides: Mapping[str, object], sources: Sources) -> dict[str, Given]:
    """What is asked of each setting, and by whom, on any machine.

    The one rule for conflicts: the profile, the file, arguments in code, the environment, the command line; each beats
    those before it.

    Args:
        profile: the values to start from, unless `sources` has another one.
        overrides: what the code asks for by keyword.
        sources: what others ask for.
    """
    return {name: given for level in _levels(profile, overrides, sources) for name, given in _spread(level).items()}


def decide(
    profile: Profile,
    overrides: Mapping[str, object],
    hardware: Hardware,
    sources: Sources = NOTHING,
    left_to: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """What each option comes to on `hardware`.

    Args:
        profile: the values to start from.
        overrides: values that beat the profile's, by option, in their one spelling.
        hardware: the machine, real or pretended.
        sources: what others than the code ask for.
        left_to: options that somebody else sees to, whoever asks for them, and who that is.
    """
    wanted = asked(profile, overrides, sources)
    decisions = []
    for name, setting in SETTINGS.items():
        if name in wanted:
            value, origin = wanted[name]
            resolved = setting.resolve(value, hardware)
            owner = left_to.get(name)
            refused = setting.refusal(hardware, resolved) if owner is None else f"left to {owner}"
            decisions.append(Decision(name, value, resolved, origin, refused, owner))
    named = {name: given for level in _levels(profile, overrides, sources) for name, given in level.items()}
    if sources.profile is not None:
        profile = sources.profile[0]
    return Plan(profile, overrides, hardware, tuple(decisions), named, sources.disabled)
