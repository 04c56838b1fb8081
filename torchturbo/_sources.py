"""Who else asks for something than the code does: a file, the environment, the command line. One rule for all of them.

Lowest to highest: the profile, the file, arguments in code, the environment, the command line. Read once, when the
first block or decorated function is made, and kept for the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from torchturbo._catalogue import OPTIONS
from torchturbo._config import Config, find
from torchturbo._measured import MEASURED, say_where_measured
from torchturbo.errors import ConfigError, OptionNameError, OptionValueError, TurboError, near
from torchturbo.profiles import PROFILES, Profile
from torchturbo.profiles import profile as profile_named
from torchturbo.settings._base import BOOL
from torchturbo.settings._text import WORDS, meanings

T = TypeVar("T")
PREFIX = "TORCHTURBO_"
_PROFILE, _DISABLE = f"{PREFIX}PROFILE", f"{PREFIX}DISABLE"


class _Unnamed(str):
    """The name of a profile that nobody has named."""

    def __reduce__(self) -> str:
        # Copies and pickles are this very one, by which it is told.
        return "UNNAMED"


UNNAMED = _Unnamed("fast")
"""The default of the argument `profile`: "fast", unless a file says otherwise, which a "fast" in code would beat."""


class Given(NamedTuple):
    """A value, and who gave it."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """What is asked for by others than the code.

    Attributes:
        profiles: profiles that a file has made, by name.
        default: the profile where the code names none; None for "fast".
        file: options that beat the profile, and that the code beats.
        environment: options that beat the code.
        command: options that beat the environment.
        profile: the profile that takes the place of the code's; None where nobody asks for one.
        disabled: who has switched everything off, or None.
        measured: of profiles that were found by measuring, what they were measured on, by name.
    """

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    default: Profile | None = None
    file: Mapping[str, Given] = field(default_factory=dict)
    environment: Mapping[str, Given] = field(default_factory=dict)
    command: Mapping[str, Given] = field(default_factory=dict)
    profile: tuple[Profile, str] | None = None
    disabled: str | None = None
    measured: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def named(self, profile: object) -> Profile:
        """The profile of that name, built in or made in a file; of `UNNAMED` the default.

        Raises:
            ProfileNameError: there is none; the message names the near ones.
        """
        found = self.default if profile is UNNAMED and self.default else profile_named(profile, self.profiles)
        if found.name in self.measured and found is self.profiles.get(found.name):
            say_where_measured(found.name, self.measured[found.name])
        return found


_NO_OPTIONS = ("base", "gain", "give", MEASURED)
NOTHING = Sources()
"""Nobody but the code asks."""

_known: Sources | None = None


def sources() -> Sources:
    """What others than the code ask for in this process, read when this is first called.

    Raises:
        ConfigError: a file cannot be read.
        OptionNameError: an option does not exist; the message says where it is named.
        OptionValueError: an option does not take its value.
        ProfileNameError: there is no such profile.
    """
    global _known
    if _known is None:
        _known = read(os.environ, folder())
    return _known


def settle(settled: Sources) -> None:
    """From here on this is what others than the code ask for in this process.

    Args:
        settled: as `torchturbo run` has read it, with its command line.
    """
    global _known
    _known = settled


@contextmanager
def settled(instead: Sources | None) -> Iterator[None]:
    """Puts other sources in place of this process's while the block runs, for tests; None has them read anew."""
    global _known
    before = _known
    _known = instead
    try:
        yield
    finally:
        _known = before


def folder() -> Path | None:
    """Where a file is looked for from, upwards; None where the working directory has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def read(
    environ: Mapping[str, str],
    folder: Path | None,
    *,
    command: Mapping[str, Given] | None = None,
    profile: str | None = None,
    bare: Mapping[str, Given] | None = None,
) -> Sources:
    """What the file, the environment and the command line ask for.

    Args:
        environ: the environment.
        folder: where to look for a file from, upwards.
        command: the options of the command line, each as text and the place it stands in.
        profile: the profile of the command line.
        bare: options under names that are not ours, which ours beat; as text and place.
    """
    disabled = environ.get(_DISABLE)
    if disabled and switch(_DISABLE, disabled):
        return Sources(disabled=f"{_DISABLE}={disabled}")
    config = find(folder) if folder is not None else Config()
    made = _profiles(config)
    measured = _measured(config)
    found = Sources(profiles=made, measured=measured)
    asked = config.table.get("profile")
    wanted, place = (profile, "--profile") if profile is not None else (environ.get(_PROFILE) or None, _PROFILE)
    return Sources(
        profiles=made,
        default=None if asked is None else _placed(config.at("profile"), lambda: found.named(asked)),
        file=_parsed(
            {name: Given(v, config.at(name)) for name, v in config.table.items() if name not in ("profile", "profiles")}
        ),
        environment=_parsed(bare or {}) | _parsed(_variables(environ)),
        command=_parsed(command or {}),
        profile=None if wanted is None else (_placed(place, lambda: found.named(wanted)), place),
        measured=measured,
    )


def switch(name: str, text: str) -> bool:
    """Whether a variable that is no option's own is on.

    Args:
        name: the variable.
        text: what it is set to.

    Raises:
        OptionValueError: that is neither on nor off.
    """
    word = name.removeprefix(PREFIX).lower()
    return bool(_placed(name, lambda: BOOL.parse(word, WORDS.get(text.lower(), text))))


def _variables(environ: Mapping[str, str]) -> dict[str, Given]:
    return {
        name.removeprefix(PREFIX).lower(): Given(value, name)
        for name, value in environ.items()
        if name.startswith(PREFIX) and value and name not in (_PROFILE, _DISABLE)
    }


def _measured(config: Config) -> dict[str, Mapping[str, object]]:
    """What profiles that were found by measuring were measured on."""
    tables = config.table.get("profiles", {})
    found = tables.items() if isinstance(tables, Mapping) else ()
    measured = ((name, table.get(MEASURED)) for name, table in found if isinstance(table, Mapping))
    return {name: its for name, its in measured if isinstance(its, Mapping)}


def _profiles(config: Config) -> dict[str, Profile]:
    """The profiles that a file makes."""
    tables = config.table.get("profiles", {})
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{config.at('profiles')}: expected tables, as [tool.torchturbo.profiles.mine]")
    made: dict[str, Profile] = {}

    def make(name: str, wanted_by: tuple[str, ...]) -> Profile:
        if name in made:
            return made[name]
        table, place = tables[name], config.at("profiles", name)
        if name in PROFILES:
            raise ConfigError(f"{place}: {name!r} is a built-in profile: give yours another name")
        if name in wanted_by:
            raise ConfigError(f"{place}: {' and '.join(map(repr, wanted_by))} have each other for base")
        if not isinstance(table, Mapping):
            raise ConfigError(f"{place}: expected a table, as [tool.torchturbo.profiles.{name}]")
        base, words = table.get("base"), {word: table.get(word, "") for word in ("gain", "give")}
        at = {key: config.at("profiles", name, key) for key in table}
        for word, said in words.items():
            if not isinstance(said, str):
                raise ConfigError(f"{at[word]}: {word}={said!r}: expected a sentence")
        options = {key: Given(value, at[key]) for key, value in table.items() if key not in _NO_OPTIONS}
        own = Profile._of(name, "", "", {key: given.value for key, given in _parsed(options).items()})
        if base in tables:
            under = make(str(base), (*wanted_by, name))
        else:
            under = Profile("nothing") if base is None else _placed(at["base"], lambda: profile_named(base, tables))
        both = under | own
        made[name] = Profile._of(name, words["gain"] or both.gain, words["give"] or both.give, both)
        return made[name]

    for name in tables:
        make(name, ())
    return made


def _parsed(options: Mapping[str, Given]) -> dict[str, Given]:
    """Options with each value in its one spelling; an error says the place that it is about."""
    return {
        name: Given(_placed(given.origin, lambda n=name, v=given.value: parse(n, v)), given.origin)  # type: ignore[misc]
        for name, given in options.items()
    }


def parse(name: str, value: object) -> object:
    """What somebody has written for an option outside of Python, in the option's one spelling.

    Text may be any word that the option takes, ``1``, ``true``, ``yes`` or ``on`` and their opposites, ``none``, a
    number, or for an option that takes a mapping a JSON object.

    Args:
        name: the option.
        value: text, or what TOML has made of it.

    Raises:
        OptionNameError: there is no such option.
        OptionValueError: it does not take that.
    """
    if name not in OPTIONS:
        raise OptionNameError(f"there is no option {name!r}: {near(name, OPTIONS)}")
    option = OPTIONS[name]
    first: OptionValueError | None = None
    for meant in meanings(value):
        try:
            return option.parse(meant)
        except OptionValueError as error:
            # A number that is out of range is a better answer than that a number is expected.
            if first is None or type(meant) is option.values.kind:
                first = error
    assert first is not None
    raise first


def _placed(place: str, act: Callable[[], T]) -> T:
    """What `act` returns; an error of it says where what was asked stands."""
    try:
        return act()
    except TurboError as error:
        raise type(error)(f"{place}: {error}") from None
