"""Law 2: writing one setting changes no other."""

from __future__ import annotations

from collections.abc import Iterable

from tests.laws.catalogue import Case
from tests.laws.layers import Maker, Ours
from tests.laws.violation import holds
from torchturbo._catalogue import SETTINGS
from torchturbo.settings._base import Setting


def exclusive(case: Case, others: Iterable[Setting] = tuple(SETTINGS.values()), make: Maker = Ours) -> None:
    """While a value is in force, every other setting reads as it did before.

    Raises:
        Violation: one does not.
    """
    if case.refused:
        return
    others = [setting for setting in others if setting.name != case.setting.name]
    with case.here():
        before = {setting.name: setting.now() for setting in others}
        layers = make()
        layer = layers.open(case.writes)
        inside = {setting.name: setting.now() for setting in others}
        layers.close(layer)
    changed = {name: (value, inside[name]) for name, value in before.items() if value != inside[name]}
    holds(not changed, f"{case} changes other settings (before, inside): {changed}")
