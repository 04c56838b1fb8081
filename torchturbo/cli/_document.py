"""The catalogue as a document: what docs/settings.md holds, and `torchturbo settings --markdown` prints.

The catalogue knows each option's values, help and refusals; what is written here only lays them out.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from torchturbo import regions, settings
from torchturbo._catalogue import Option
from torchturbo.hardware import Hardware
from torchturbo.profiles import Profile
from torchturbo.settings._base import Group, Setting
from torchturbo.testing import MACHINES


def by_area(options: Mapping[str, Option]) -> dict[str, list[Option]]:
    """Options by the file that declares them, each in its order."""
    areas: dict[str, list[Option]] = {}
    for option in options.values():
        areas.setdefault(option.area, []).append(option)
    return areas


SETTINGS_HEAD = """\
<!-- Written by tools/generate.py from the catalogue of options: change that, not this. -->

# Settings

Every option of `turbo`, `accelerate` and `Profile`. A block changes the options that its profile holds and
the ones given to it by keyword, which win; every other stays as it is. One that has no effect on the machine
at hand is left out, and `report()` says why; with `strict=True` it is an error. The
[profiles](#profiles) are at the end.

Who sees a change while a block is open: **process** means every thread, **thread** the one that opened it.
"""


def settings_document(options: Mapping[str, Option], profiles: Mapping[str, Profile]) -> str:
    """The document of every option and every profile."""
    return "\n".join(_document(options, profiles)) + "\n"


def _document(options: Mapping[str, Option], profiles: Mapping[str, Profile]) -> Iterator[str]:
    yield SETTINGS_HEAD
    yield "| option | values | what it is |"
    yield "|---|---|---|"
    for option in options.values():
        yield f"| [`{option.name}`](#{option.name}) | {_choices(option)} | {_cell(option.help)} |"
    for area, members in by_area(options).items():
        path = declared_in(members[0])
        yield f"\n## {area}.py\n\nDeclared in [{path}](../{path})."
        for option in members:
            yield from _section(option, options, profiles)
    yield "\n## Profiles"
    for profile in profiles.values():
        yield f"\n### {profile.name}\n\n**You gain:** {profile.gain}\n\n**You give:** {profile.give}\n"
        yield "\n".join(f"- [`{name}`](#{name}) = {code(value)}" for name, value in profile.items())


def _section(option: Option, options: Mapping[str, Option], profiles: Mapping[str, Profile]) -> Iterator[str]:
    yield f"\n### {option.name}\n\n{option.help}\n"
    yield f"- **Values:** {values(option)}"
    yield f"- **Seen by:** {scope(option, options)}"
    if isinstance(option, Group):
        for value in option.values.choices:
            members = (f"[`{name}`](#{name}) = {code(its)}" for name, its in option.members(value).items())
            yield f"- **{code(value)}** stands for {', '.join(members)}, except where these are given too."
    held = ", ".join(f"[{name}](#{name}) ({how})" for name, how in held_by(option, options, profiles))
    yield f"- **Profiles:** {held or 'none holds it'}"
    if isinstance(option, Setting):
        reasons = list(_no_effect(option))
        if reasons:
            yield "- **No effect,** as the report says it:"
            yield from (f"  - {reason}" for reason in reasons)


def code(value: object) -> str:
    """A value as Python writes it, in Markdown."""
    return f"`{value!r}`".replace("'", '"')


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _choices(option: Option) -> str:
    values = option.values
    return ", ".join([*map(code, values.choices), *([f"`{values.kind.__name__}`"] if values.kind is not None else [])])


def values(option: Option) -> str:
    """What an option takes, in Markdown."""
    takes = option.values
    if takes.kind is not None:
        # What a rule asks for is what it says to a value that breaks it.
        wrong = takes.rule({int: -(2**62), float: -1.0, str: ""}[takes.kind])
        return f"{_choices(option)}{', ' + wrong.removeprefix('expected ') if wrong else ''}"
    spelled: dict[str, list[str]] = {}
    for alias, choice in takes.aliases.items():
        spelled.setdefault(code(choice), []).append(code(alias))
    also = (f"{choice} may be written {' or '.join(aliases)}" for choice, aliases in spelled.items())
    return "; ".join([_choices(option), *also, *filter(None, [takes.also])])


def scope(option: Option, options: Mapping[str, Option]) -> str:
    """Who sees a change of an option."""
    if isinstance(option, Setting):
        return option.scope
    members = {name for value in option.values.choices for name in option.members(value)}
    return " and ".join(sorted({scope(options[name], options) for name in members}))


def declared_in(option: Option) -> str:
    """The file that declares an option, from the root of the repository."""
    for package in (settings, regions):
        if any(found.name == option.area for found in pkgutil.iter_modules(package.__path__)):
            return f"{package.__name__.replace('.', '/')}/{option.area}.py"
    raise FileNotFoundError(f"no file of the package is called {option.area}.py, which declares {option.name}")


def held_by(
    option: Option, options: Mapping[str, Option], profiles: Mapping[str, Profile]
) -> Iterator[tuple[str, str]]:
    """Each profile that holds an option, itself or through a group, and the value."""
    for name, profile in profiles.items():
        if option.name in profile:
            yield name, code(profile[option.name])
            continue
        for group_name, value in profile.items():
            group = options[group_name]
            if isinstance(group, Group) and option.name in group.members(value):
                yield name, f"{code(group.members(value)[option.name])}, through {group_name}"


def _no_effect(setting: Setting) -> Iterator[str]:
    """Each reason for which some value has no effect on some machine, with the values and the machines."""
    tried = setting.values.choices or ({int: 1, float: 2.0, str: ""}[setting.values.kind or str],)
    machines_by_reason: dict[str, dict[str, None]] = {}
    values_by_reason: dict[str, list[object]] = {}
    for value in tried:
        for machine, pretended in MACHINES.items():
            # The document is of any build of torch, and not of the one that is here.
            hardware = replace(pretended, build=replace(pretended.build, magma=True))
            reason = setting.why_not(hardware, setting.resolve(value, hardware))
            if reason is None:
                continue
            reason = _of_any_machine(reason, hardware)
            machines_by_reason.setdefault(reason, {})[machine] = None
            if value not in values_by_reason.setdefault(reason, []):
                values_by_reason[reason].append(value)
    for reason, machines in machines_by_reason.items():
        values = values_by_reason[reason]
        which = "" if len(values) == len(tried) else f"{', '.join(map(code, values))}: "
        yield f'{which}"{reason}" (as on {_listed(machines)})'


def _of_any_machine(reason: str, hardware: Hardware) -> str:
    """A reason that names the machine's own parts, as it would be said of any such machine."""
    for name in hardware.names_of_gpus:
        reason = reason.replace(name, "this GPU")
    return reason.replace(hardware.cpu.name, "this CPU")


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
