"""What a run runs under: a profile and options, as `turbo` takes them, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torchturbo._turbo import turbo
from torchturbo._words import arguments
from torchturbo.profiles import Profile

Settings = Mapping[str, Any]
"""Options by name, and the profile under ``"profile"``."""


def around(settings: Settings) -> AbstractContextManager[object]:
    """A block with these settings; nothing at all where there are none.

    Args:
        settings: the profile and the options.

    Raises:
        ProfileNameError: there is no such profile.
        OptionNameError: there is no such option.
        OptionValueError: an option does not take its value.
    """
    if not settings:
        return nullcontext()
    options = dict(settings)
    profile: str | Profile = options.pop("profile", None) or Profile("as it is")
    return turbo(profile, **options)


def told(settings: Settings) -> str:
    """Settings as they are written: ``profile='reproducible', seed=0``."""
    return arguments(named(settings))


def named(settings: Settings) -> Settings:
    """Settings with the profile by its name."""
    return {name: value.name if isinstance(value, Profile) else value for name, value in settings.items()}
