"""What a library's file says where the library is not there, or is older than what torchturbo was tried with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from torchturbo.errors import MissingPackageError


@contextmanager
def needed(extra: str, *other_names: str) -> Iterator[None]:
    """Imports a library in the block.

    Args:
        extra: the extra of torchturbo that brings it, which has its name.
        *other_names: of distributions that are the same library.

    Raises:
        MissingPackageError: it is not installed, or too old; says what to type.
    """
    try:
        yield
    except ImportError as error:
        lacking = [f"{name}{at_least and f'>={at_least}'}" for name, at_least in _wanted(extra) if not _version(name)]
        if not lacking:
            raise
        raise MissingPackageError(
            f"torchturbo.integrations.{extra} needs {' and '.join(lacking)}, which is not installed: "
            f"pip install 'torchturbo[{extra}]'"
        ) from error
    for name, at_least in _wanted(extra):
        here = {each: version for each in (name, *other_names) if (version := _version(each))}
        if here and all(_numbers(version) < _numbers(at_least) for version in here.values()):
            each, version = next(iter(here.items()))
            raise MissingPackageError(
                f"torchturbo.integrations.{extra} needs {each}>={at_least}, and {version} is installed: "
                f"pip install --upgrade 'torchturbo[{extra}]'"
            )


def _wanted(extra: str) -> list[tuple[str, str]]:
    """The distributions that an extra brings, and the oldest version of each that will do."""
    try:
        every = metadata.requires("torchturbo") or []
    except metadata.PackageNotFoundError:
        return [(extra, "")]
    found = [
        (line[1], line[2])
        for each in every
        if (line := re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\d.]+)", each))
        and re.search(rf"extra\s*==\s*['\"]{extra}['\"]", each)
    ]
    return found or [(extra, "")]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
