"""Writes what the catalogue of options already says: the typed keywords, the words that Tab completes, the document.

    python tools/generate.py            # write torchturbo/_options.py, torchturbo/cli/_words.py and docs/settings.md
    python tools/generate.py --check    # write nothing; show what is stale, and exit with 1 if anything is

The catalogue knows each option's values, help and refusals; what is written here only lays them out.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from torchturbo._catalogue import OPTIONS, Option
from torchturbo.cli._document import settings_document
from torchturbo.profiles import PROFILES, Profile
from torchturbo.testing import MACHINES

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120


# ------------------------------------------------------------------------------------- torchturbo/_options.py

OPTIONS_HEAD = '''\
"""Every option as a typed keyword, for editors and type checkers.

Written by tools/generate.py from the catalogue of options: change that, not this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


# ----------------------------------------------------------------------------------- torchturbo/cli/_words.py

WORDS_HEAD = '''\
"""The words that the command line completes, known without importing torch, which Tab would have to wait for.

Written by tools/generate.py from the catalogue of options: change that, not this.
"""

from __future__ import annotations
'''


def words_module(options: Mapping[str, Option], profiles: Mapping[str, Profile], machines: Mapping[str, object]) -> str:
    """The module of every name that can be completed, as ``ruff format`` would have it."""
    named: dict[str, tuple[str, Mapping[str, str | tuple[str, ...]]]] = {
        "PROFILES": ("What each built-in profile gives.", {name: profile.gain for name, profile in profiles.items()}),
        "OPTIONS": ("What each option is.", {name: option.help for name, option in options.items()}),
        "VALUES": ("The values of each option that can be listed.", {name: _typed(o) for name, o in options.items()}),
    }
    tables = "".join(
        f'\n{name} = {{\n{"".join(_entry(key, value) for key, value in table.items())}}}\n"""{says}"""\n'
        for name, (says, table) in named.items()
    )
    listed = "".join(f"    {_quoted(name)},\n" for name in machines)
    return f'{WORDS_HEAD}{tables}\nMACHINES = (\n{listed})\n"""The machines that can be pretended."""\n'


def _typed(option: Option) -> tuple[str, ...]:
    """The values of an option as they are typed on a command line."""
    words = {True: "true", False: "false", None: "none"}
    return tuple(
        choice if isinstance(choice, str) else words[choice]  # type: ignore[index]
        for choice in option.values.choices
    )


def _entry(key: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        line = f"    {_quoted(key)}: {_quoted(value)},\n"
        if len(line) <= WIDTH + 1:
            return line
        parts = textwrap.wrap(value, WIDTH - 11, drop_whitespace=False, break_on_hyphens=False)
        return f"    {_quoted(key)}: (\n{''.join(f'        {_quoted(part)}{chr(10)}' for part in parts)}    ),\n"
    inside = ", ".join(map(_quoted, value)) + ("," if len(value) == 1 else "")
    return f"    {_quoted(key)}: ({inside}),\n"


def _quoted(text: str) -> str:
    return "'" + text + "'" if '"' in text else '"' + text + '"'


# ------------------------------------------------------------------------------------------------ the command


def generated() -> dict[Path, str]:
    """Every generated file, with the text that it should have."""
    return {
        ROOT / "torchturbo" / "_options.py": options_module(OPTIONS),
        ROOT / "torchturbo" / "cli" / "_words.py": words_module(OPTIONS, PROFILES, MACHINES),
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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
