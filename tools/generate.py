"""Writes what the catalogue of options already says: the typed keywords, and the document of every option.

    python tools/generate.py            # write torchturbo/_options.py and docs/settings.md
    python tools/generate.py --check    # write nothing; show what is stale, and exit with 1 if anything is

The catalogue knows each option's values, help and refusals; what is written here only lays them out.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torchturbo._catalogue import OPTIONS, Option
from torchturbo.hardware import Hardware
from torchturbo.profiles import PROFILES, Profile
from torchturbo.settings._base import Group, Setting
from torchturbo.testing import MACHINES

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120


def by_area(options: Mapping[str, Option]) -> dict[str, list[Option]]:
    """Options by the file that declares them, each in its order."""
    areas: dict[str, list[Option]] = {}
    for option in options.values():
        areas.setdefault(option.area, []).append(option)
    return areas


# ------------------------------------------------------------------------------------- torchturbo/_options.py

OPTIONS_HEAD = '''\
"""Every option as a typed keyword, for editors and type checkers.

Written by tools/generate.py from the catalogue of options: change that, not this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

import torch


class Options(TypedDict, total=False):
    """The keywords of `turbo`, `accelerate` and `Profile`: which options there are, and what each takes."""
'''


def options_module(options: Mapping[str, Option]) -> str:
    """The module that types every option, as ``ruff format`` would have it."""
    return OPTIONS_HEAD + "".join(
        f"\n{_annotated(option.name, option.values.annotation)}\n{_docstring(option.help)}"
        for option in options.values()
    )


def _annotated(name: str, annotation: str) -> str:
    line = f"    {name}: {annotation}"
    if len(line) <= WIDTH:
        return line
    broken = annotation.replace(" | ", "\n        | ")
    return f"    {name}: (\n        {broken}\n    )"


def _docstring(text: str) -> str:
    line = f'    """{text}"""'
    if len(line) <= WIDTH:
        return f"{line}\n"
    first, *rest = textwrap.wrap(text, WIDTH - len('    """'), break_long_words=False, break_on_hyphens=False)
    return "\n".join([f'    """{first}', *(f"    {more}" for more in rest), '    """\n'])


# ------------------------------------------------------------------------------------------- docs/settings.md

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
        path = _declared_in(members[0])
        yield f"\n## {area}.py\n\nDeclared in [{path}](../{path})."
        for option in members:
            yield from _section(option, options, profiles)
    yield "\n## Profiles"
    for profile in profiles.values():
        yield f"\n### {profile.name}\n\n**You gain:** {profile.gain}\n\n**You give:** {profile.give}\n"
        yield "\n".join(f"- [`{name}`](#{name}) = {_code(value)}" for name, value in profile.items())


def _section(option: Option, options: Mapping[str, Option], profiles: Mapping[str, Profile]) -> Iterator[str]:
    yield f"\n### {option.name}\n\n{option.help}\n"
    yield f"- **Values:** {_values(option)}"
    yield f"- **Seen by:** {_scope(option, options)}"
    if isinstance(option, Group):
        for value in option.values.choices:
            members = (f"[`{name}`](#{name}) = {_code(its)}" for name, its in option.members(value).items())
            yield f"- **{_code(value)}** stands for {', '.join(members)}, except where these are given too."
    held = ", ".join(f"[{name}](#{name}) ({how})" for name, how in _held_by(option, options, profiles))
    yield f"- **Profiles:** {held or 'none holds it'}"
    if isinstance(option, Setting):
        reasons = list(_no_effect(option))
        if reasons:
            yield "- **No effect,** as the report says it:"
            yield from (f"  - {reason}" for reason in reasons)


def _code(value: object) -> str:
    return f"`{value!r}`".replace("'", '"')


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _choices(option: Option) -> str:
    values = option.values
    return f"`{values.kind.__name__}`" if values.kind is not None else ", ".join(map(_code, values.choices))


def _values(option: Option) -> str:
    values = option.values
    if values.kind is not None:
        # What a rule asks for is what it says to a value that breaks it.
        wrong = values.rule({int: -(2**62), float: -1.0, str: ""}[values.kind])
        return f"{_choices(option)}{', ' + wrong.removeprefix('expected ') if wrong else ''}"
    spelled: dict[str, list[str]] = {}
    for alias, choice in values.aliases.items():
        spelled.setdefault(_code(choice), []).append(_code(alias))
    also = (f"{choice} may be written {' or '.join(aliases)}" for choice, aliases in spelled.items())
    return "; ".join([_choices(option), *also, *filter(None, [values.also])])


def _scope(option: Option, options: Mapping[str, Option]) -> str:
    if isinstance(option, Setting):
        return option.scope
    members = {name for value in option.values.choices for name in option.members(value)}
    return " and ".join(sorted({_scope(options[name], options) for name in members}))


def _declared_in(option: Option) -> str:
    for folder in ("settings", "regions"):
        path = f"torchturbo/{folder}/{option.area}.py"
        if (ROOT / path).exists():
            return path
    raise FileNotFoundError(f"no file of the package is called {option.area}.py, which declares {option.name}")


def _held_by(
    option: Option, options: Mapping[str, Option], profiles: Mapping[str, Profile]
) -> Iterator[tuple[str, str]]:
    """Each profile that holds an option, itself or through a group, and the value."""
    for name, profile in profiles.items():
        if option.name in profile:
            yield name, _code(profile[option.name])
            continue
        for group_name, value in profile.items():
            group = options[group_name]
            if isinstance(group, Group) and option.name in group.members(value):
                yield name, f"{_code(group.members(value)[option.name])}, through {group_name}"


def _no_effect(setting: Setting) -> Iterator[str]:
    """Each reason for which some value has no effect on some machine, with the values and the machines."""
    tried = setting.values.choices or ({int: 1, float: 2.0, str: ""}[setting.values.kind or str],)
    machines_by_reason: dict[str, dict[str, None]] = {}
    values_by_reason: dict[str, list[object]] = {}
    for value in tried:
        for machine, hardware in MACHINES.items():
            reason = setting.why_not(hardware, setting.resolve(value, hardware))
            if reason is None:
                continue
            reason = _of_any_machine(reason, hardware)
            machines_by_reason.setdefault(reason, {})[machine] = None
            if value not in values_by_reason.setdefault(reason, []):
                values_by_reason[reason].append(value)
    for reason, machines in machines_by_reason.items():
        values = values_by_reason[reason]
        which = "" if len(values) == len(tried) else f"{', '.join(map(_code, values))}: "
        yield f'{which}"{reason}" (as on {_listed(machines)})'


def _of_any_machine(reason: str, hardware: Hardware) -> str:
    """A reason that names the machine's own parts, as it would be said of any such machine."""
    for gpu in hardware.gpus:
        reason = reason.replace(gpu.name, "this GPU")
    return reason.replace(hardware.cpu.name, "this CPU")


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


# ------------------------------------------------------------------------------------------------ the command


def generated() -> dict[Path, str]:
    """Every generated file, with the text that it should have."""
    return {
        ROOT / "torchturbo" / "_options.py": options_module(OPTIONS),
        ROOT / "docs" / "settings.md": settings_document(OPTIONS, PROFILES),
    }


def stale(files: Mapping[Path, str]) -> str:
    """What would change in these files, as one diff; empty if nothing would."""
    diffs: list[str] = []
    for path, text in files.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        name = path.relative_to(ROOT).as_posix()
        diffs += difflib.unified_diff(
            found.splitlines(keepends=True),
            text.splitlines(keepends=True),
            f"{name}, as it is",
            f"{name}, as it should be",
        )
    return "".join(diffs)


def main(arguments: list[str] | None = None) -> int:
    """Writes the files, or with ``--check`` says what is stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    files = generated()
    if parser.parse_args(arguments).check:
        difference = stale(files)
        sys.stdout.write(difference)
        return int(bool(difference))
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
