"""Profiles that were found by measuring: what they were measured on, and whether that is what is here."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

import torch

from torchturbo.errors import HardwareWarning
from torchturbo.hardware import detect

MEASURED = "measured"
"""The table of a profile in a file that says what it was measured on."""


def say_where_measured(name: str, measured: Mapping[str, object]) -> None:
    """Warns where a profile was measured on something else than what is here, at the line that asks for it.

    Args:
        name: the profile.
        measured: what it was measured on.
    """
    here = {"hardware": detect().name, "torch": _release(torch.__version__)}
    then = {"hardware": str(measured.get("hardware")), "torch": _release(measured.get("torch"))}
    other = [f"{then[what]} (here: {here[what]})" for what in here if then[what] != here[what]]
    if other:
        level, frame = 1, sys._getframe(0)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("torchturbo."):
            level, frame = level + 1, frame.f_back
        warnings.warn(
            f"the profile {name!r} was measured on {' and '.join(other)}, and what is fastest there may be slower "
            "or less precise here: run `torchturbo tune` again",
            HardwareWarning,
            stacklevel=level,
        )


def _release(version: object) -> str:
    """The version without patch and build: 2.13 of 2.13.0+cpu."""
    return "torch " + ".".join(str(version).split("+")[0].split(".")[:2])
